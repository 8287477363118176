"""GetCausationTree: what led to what, found from either end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cqrs.errors import InvalidRequest, NotReached
from cqrs.ids import new_id
from cqrs.records import EventRecord
from orderstream.events.v1.event_service_pb2 import GetCausationTreeRequest, GetCausationTreeResponse
from tests.integration.events.serving import WatchedStore, serving, watched_log
from tests.integration.events.writing import START, Draft, LogWriter, result_at


def tree(store: WatchedStore, **request: Any) -> GetCausationTreeResponse:
    async def run() -> GetCausationTreeResponse:
        context: Any = None
        async with serving(store) as served:
            return await served.service.GetCausationTree(GetCausationTreeRequest(**request), context)

    return asyncio.run(run())


def shape(answer: GetCausationTreeResponse) -> list[tuple[int, int, int]]:
    """(position, its parent's position, depth) of each node."""
    return [(node.event.position, node.parent_position, node.depth) for node in answer.nodes]


def write_process(log: LogWriter) -> list[EventRecord]:
    """Two commands of a process, what they led to, and what has nothing to do with them.

    1 (command r-1: 1, 2) ── r-1 ──▶ 4 ──▶ 5;   1 ── its event id ──▶ 6;   5 ──▶ 8 (of another process)
    """
    now = time.time_ns() // 1000  # ids have the time in them, and record times that fit
    first = log.write(
        Draft("a", request_id="r-1", correlation_id="p", record_time=now),
        Draft("a", request_id="r-1", correlation_id="p", record_time=now),
        results=[result_at("r-1", now)],
    )
    log.write(Draft("x"))
    fourth = log.write(Draft("b", correlation_id="p", causation_id="r-1"))[0]
    fifth = log.write(Draft("c", correlation_id="p", causation_id=fourth.event_id, request_id="r-5"))[0]
    log.write(Draft("d", correlation_id="p", causation_id=first[0].event_id))
    log.write(Draft("x", causation_id="something outside"))
    log.write(Draft("e", correlation_id="q", causation_id=fifth.request_id))
    return log.events


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_process_is_its_events_and_what_they_led_to_each_below_its_cause(
    tmp_path: Path, request: pytest.FixtureRequest, database: str
) -> None:
    where = tmp_path if database == "sqlite" else request.getfixturevalue("postgresql_write_db")
    with watched_log(where) as (store, log):
        write_process(log)
        answer = tree(store, correlation_id="p")
        assert not answer.truncated
        # 4 names the command, and so its last event.
        assert shape(answer) == [(1, 0, 0), (2, 0, 0), (4, 2, 1), (5, 4, 2), (6, 1, 1), (8, 5, 3)]
        assert shape(tree(store, position=6)) == [(1, 0, 0), (6, 1, 1)]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (1, [(1, 0, 0), (6, 1, 1)]),
        (2, [(2, 0, 0), (4, 2, 1), (5, 4, 2), (8, 5, 3)]),
        (4, [(2, 0, 0), (4, 2, 1), (5, 4, 2), (8, 5, 3)]),
        (5, [(2, 0, 0), (4, 2, 1), (5, 4, 2), (8, 5, 3)]),
        (6, [(1, 0, 0), (6, 1, 1)]),
        (7, [(7, 0, 0)]),
        (8, [(8, 0, 0)]),  # the outcome of the command r-5 is not kept any more: nothing says where its event would be
    ],
)
def test_an_event_is_shown_with_what_led_to_it_and_what_it_led_to(
    tmp_path: Path, position: int, expected: list[tuple[int, int, int]]
) -> None:
    with watched_log(tmp_path) as (store, log):
        write_process(log)
        answer = tree(store, position=position)
        assert shape(answer) == expected
        assert not answer.truncated


def test_a_cause_in_another_process_is_named_though_it_is_no_part_of_the_answer(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        log.write(Draft("a", request_id="r-1", correlation_id="p"), results=[result_at("r-1", START + 1)])
        log.write(Draft("b", correlation_id="q", causation_id="r-1"))
        assert shape(tree(store, correlation_id="q")) == [(2, 1, 0)]


@pytest.mark.parametrize("seconds", [-60, 0, 60])
def test_a_cause_is_found_by_the_time_in_its_id_also_by_a_clock_that_goes_wrong(tmp_path: Path, seconds: int) -> None:
    with watched_log(tmp_path) as (store, log):
        recorded = time.time_ns() // 1000 + seconds * 1_000_000
        log.write(*(Draft(f"a-{number}", record_time=recorded - 5_000_000) for number in range(50)))
        event_id, request_id = new_id(), new_id()
        log.write(Draft("b", event_id=event_id, request_id=request_id, record_time=recorded))
        log.write(*(Draft(f"c-{number}", record_time=recorded + 5_000_000) for number in range(50)))
        log.write(Draft("d", causation_id=event_id), Draft("e", causation_id=request_id))
        assert shape(tree(store, position=102)) == [(51, 0, 0), (102, 51, 1)]
        assert shape(tree(store, position=103)) == [(51, 0, 0), (103, 51, 1)]


def test_a_command_does_not_lead_to_itself_and_a_cause_comes_first(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        later = new_id()
        log.write(Draft("a", request_id="r", causation_id="r", correlation_id="p"))
        log.write(Draft("b", causation_id=later, correlation_id="p"))
        log.write(Draft("c", event_id=later, correlation_id="p"))
        assert shape(tree(store, correlation_id="p")) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
        assert shape(tree(store, position=1)) == [(1, 0, 0)]
        assert shape(tree(store, position=3)) == [(3, 0, 0)]


def test_a_tree_is_bounded_and_says_that_there_is_more(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        root = log.write(Draft("a", correlation_id="p"))[0]
        log.write(*(Draft(f"b-{number}", causation_id=root.event_id) for number in range(30)))
        log.write(*(Draft("c", correlation_id="q") for _ in range(30)))
        for request in ({"position": 1}, {"correlation_id": "p"}, {"correlation_id": "q"}):
            given: dict[str, Any] = request
            for max_events, truncated in ((10, True), (29, True), (31, False), (0, False)):
                answer = tree(store, max_events=max_events, **given)
                total = 30 if given == {"correlation_id": "q"} else 31
                assert (len(answer.nodes), answer.truncated) == (min(max_events or total, total), truncated)


def test_a_long_chain_is_followed_from_its_middle_both_ways_within_the_bounds(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        cause: EventRecord | None = None
        for number in range(60):
            causation_id = None if cause is None else cause.request_id
            request_id = f"r-{number}"
            draft = Draft(f"a-{number}", request_id=request_id, causation_id=causation_id)
            cause = log.write(draft, results=[result_at(request_id, START + number + 1)])[0]
        whole = [(position, position - 1, position - 1) for position in range(1, 61)]
        assert shape(tree(store, position=30)) == whole
        part = tree(store, position=30, max_events=20)
        assert part.truncated
        assert shape(part) == [(position, position - 1, position - 11) for position in range(11, 31)]


def test_events_too_large_for_one_answer_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        log.write(*(Draft("a", correlation_id="p", data=b"x" * 900_000) for _ in range(5)))
        answer = tree(store, correlation_id="p")
        assert answer.truncated
        assert [node.event.position for node in answer.nodes] == [1, 2]


def test_a_position_ahead_and_a_malformed_request_are_refused(tmp_path: Path) -> None:
    with watched_log(tmp_path) as (store, log):
        log.write_many(3)
        with pytest.raises(NotReached):
            tree(store, position=4)
        for malformed in ({}, {"position": 0}, {"correlation_id": ""}, {"position": 1, "max_events": 10_001}):
            given: dict[str, Any] = malformed
            with pytest.raises(InvalidRequest):
                tree(store, **given)
