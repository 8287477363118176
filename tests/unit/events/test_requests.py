"""The requests of EventService, checked."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from command_server.events.requests import (
    LARGEST,
    check_aggregate_state,
    check_causation_tree,
    check_read_aggregate,
    check_read_log,
    check_subscribe,
)
from command_server.events.resume_tokens import ResumeToken, encode_resume_token
from cqrs.errors import InvalidRequest
from orderstream.events.v1.event_service_pb2 import (
    READ_DIRECTION_BACKWARDS,
    EventFilter,
    GetAggregateStateRequest,
    GetCausationTreeRequest,
    ReadAggregateRequest,
    ReadLogRequest,
    SubscribeRequest,
)

EPOCH = "11111111-1111-7111-8111-111111111111"


def fields_refused(check: Any, *arguments: Any) -> set[str]:
    """The fields that are named as wrong."""
    with pytest.raises(InvalidRequest) as refused:
        check(*arguments)
    return {violation.field for violation in refused.value.violations}


def test_an_absent_field_means_what_the_contract_says() -> None:
    aggregate = check_read_aggregate(ReadAggregateRequest(aggregate_id="a"))
    assert (aggregate.backwards, aggregate.from_version, aggregate.from_time) == (False, None, None)
    assert aggregate.max_count == LARGEST
    log = check_read_log(ReadLogRequest())
    assert (log.from_position, log.from_time, log.max_count) == (1, None, LARGEST)
    assert log.chosen.chooses_all
    wanted = check_subscribe(SubscribeRequest())
    assert (wanted.token, wanted.from_position, wanted.from_time, wanted.from_end) == (None, None, None, False)
    assert wanted.max_events == 500
    assert check_causation_tree(GetCausationTreeRequest(position=1)).max_events == 1_000


def test_times_between_two_microseconds_are_rounded_in_the_direction_of_reading() -> None:
    time = Timestamp(seconds=1, nanos=1_500)
    assert check_read_aggregate(ReadAggregateRequest(aggregate_id="a", from_time=time)).from_time == 1_000_002
    backwards = ReadAggregateRequest(aggregate_id="a", from_time=time, direction=READ_DIRECTION_BACKWARDS)
    assert check_read_aggregate(backwards).from_time == 1_000_001
    assert check_read_log(ReadLogRequest(from_time=time)).from_time == 1_000_002
    assert check_subscribe(SubscribeRequest(from_time=time)).from_time == 1_000_002
    state = check_aggregate_state(GetAggregateStateRequest(aggregate_id="a", time=time), 2_000_000)
    assert state.time == 1_000_001


def test_every_violation_is_named_not_only_the_first() -> None:
    bad_time = Timestamp(nanos=-1)
    no_direction: Any = 7
    request = ReadAggregateRequest(from_version=-1, max_count=-1, direction=no_direction, from_time=bad_time)
    assert fields_refused(check_read_aggregate, request) == {
        "aggregate_id",
        "from_version",
        "max_count",
        "direction",
        "from_time",
    }
    log = ReadLogRequest(from_position=3, from_time=Timestamp(), max_count=-1)
    assert fields_refused(check_read_log, log) == {"from_time", "max_count"}
    tree = GetCausationTreeRequest(max_events=10_001)
    assert fields_refused(check_causation_tree, tree) == {"of", "max_events"}


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (EventFilter(aggregate_types=["a"] * 101), "filter.aggregate_types"),
        (EventFilter(event_types=["a", ""]), "filter.event_types[1]"),
        (EventFilter(event_types=["a" * 201]), "filter.event_types[0]"),
        (EventFilter(aggregate_ids=["a"] * 1_001), "filter.aggregate_ids"),
        (EventFilter(aggregate_ids=["a", "b", "not an id"]), "filter.aggregate_ids[2]"),
    ],
)
def test_a_filter_has_limits(chosen: EventFilter, field: str) -> None:
    assert fields_refused(check_read_log, ReadLogRequest(filter=chosen)) == {field}
    assert fields_refused(check_subscribe, SubscribeRequest(filter=chosen)) == {field}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SubscribeRequest(resume_token=""), "resume_token"),
        (SubscribeRequest(resume_token="x"), "resume_token"),
        (SubscribeRequest(resume_token=encode_resume_token(ResumeToken(EPOCH, 1, 2, cell=3))), "resume_token"),
        (SubscribeRequest(from_position=0), "from_position"),
        (SubscribeRequest(from_time=Timestamp(seconds=1 << 50)), "from_time"),
        (SubscribeRequest(from_end=False), "from_end"),
        (SubscribeRequest(max_events=1_001), "max_events"),
        (SubscribeRequest(max_events=-1), "max_events"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(request_: SubscribeRequest, field: str) -> None:
    assert fields_refused(check_subscribe, request_) == {field}


def test_a_point_is_given_or_not_but_never_zero_and_never_in_the_future() -> None:
    ahead = Timestamp(seconds=3)
    for wrong, field in (
        (GetAggregateStateRequest(aggregate_id="a", version=0), "version"),
        (GetAggregateStateRequest(aggregate_id="a", position=0), "position"),
        (GetAggregateStateRequest(aggregate_id="a", time=ahead), "time"),
    ):
        assert fields_refused(check_aggregate_state, wrong, 2_999_999) == {field}
    newest = check_aggregate_state(GetAggregateStateRequest(aggregate_id="a"), 0)
    assert (newest.version, newest.position, newest.time) == (None, None, None)
