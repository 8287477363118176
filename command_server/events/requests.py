"""The requests of EventService, checked: every violation is named, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from command_server.events.resume_tokens import MalformedResumeToken, ResumeToken, decode_resume_token
from cqrs.serving.validation import Violations
from cqrs.store.queries import LogFilter
from orderstream.events.v1.event_service_pb2 import (
    READ_DIRECTION_BACKWARDS,
    EventFilter,
    GetAggregateStateRequest,
    GetCausationTreeRequest,
    ReadAggregateRequest,
    ReadDirection,
    ReadLogRequest,
    SubscribeRequest,
)

LARGEST = 2**63 - 1

_MAX_TYPES = 100
_MAX_IDS = 1_000
_MAX_TYPE_LENGTH = 200
_MAX_ID_LENGTH = 128
_MAX_EVENTS_IN_ANSWER = 1_000
_DEFAULT_EVENTS_IN_ANSWER = 500
_MAX_TREE_EVENTS = 10_000
_DEFAULT_TREE_EVENTS = 1_000


class AggregateRange(NamedTuple):
    """What ReadAggregate is to return."""

    aggregate_id: str
    backwards: bool
    from_version: int | None
    from_time: int | None
    """Microseconds since 1970. Neither: from the end that `backwards` begins with."""
    max_count: int


class LogRange(NamedTuple):
    """What ReadLog is to return."""

    from_position: int
    from_time: int | None
    """Microseconds since 1970; wins over the position."""
    max_count: int
    chosen: LogFilter


class Wanted(NamedTuple):
    """What a subscriber wants. At most one of the starts is given; none: from position 1."""

    token: ResumeToken | None
    from_position: int | None
    from_time: int | None
    """Microseconds since 1970."""
    from_end: bool
    chosen: LogFilter
    max_events: int


class WantedState(NamedTuple):
    """Which state GetAggregateState is to return. At most one of the points is given; none: the newest."""

    aggregate_id: str
    version: int | None
    position: int | None
    time: int | None
    """Microseconds since 1970."""


class WantedTree(NamedTuple):
    """What GetCausationTree is to return. One of the two is given."""

    correlation_id: str | None
    position: int | None
    max_events: int


def check_read_aggregate(request: ReadAggregateRequest) -> AggregateRange:
    """The request as a range.

    Raises:
        InvalidRequest: see the contract.
    """
    violations = Violations()
    violations.identifier("aggregate_id", request.aggregate_id)
    violations.integer("from_version", request.from_version, 0, LARGEST)
    violations.integer("max_count", request.max_count, 0, LARGEST)
    if request.direction not in ReadDirection.values():
        violations.add("direction", f"is {request.direction}, must be one of ReadDirection")
    backwards = request.direction == READ_DIRECTION_BACKWARDS
    time = None
    if request.HasField("from_time"):
        time = (
            _at_or_before(violations, request.from_time) if backwards else _at_or_after(violations, request.from_time)
        )
        if request.from_version:
            violations.add("from_time", "cannot be combined with from_version")
    violations.check()
    count = request.max_count or LARGEST
    return AggregateRange(request.aggregate_id, backwards, request.from_version or None, time, count)


def check_read_log(request: ReadLogRequest) -> LogRange:
    """The request as a range.

    Raises:
        InvalidRequest: see the contract.
    """
    violations = Violations()
    violations.integer("from_position", request.from_position, 0, LARGEST)
    violations.integer("max_count", request.max_count, 0, LARGEST)
    time = None
    if request.HasField("from_time"):
        time = _at_or_after(violations, request.from_time)
        if request.from_position:
            violations.add("from_time", "cannot be combined with from_position")
    chosen = _filter(violations, request.filter)
    violations.check()
    return LogRange(max(1, request.from_position), time, request.max_count or LARGEST, chosen)


def check_subscribe(request: SubscribeRequest) -> Wanted:
    """The request, read.

    Raises:
        InvalidRequest: see the contract.
    """
    violations = Violations()
    start = request.WhichOneof("start")
    token = from_position = from_time = None
    if start == "resume_token":
        try:
            token = decode_resume_token(request.resume_token)
        except MalformedResumeToken as error:
            violations.add("resume_token", str(error))
        else:
            if token.cell:
                violations.add("resume_token", f"is of cell {token.cell}, which this server does not serve")
    elif start == "from_position":
        from_position = request.from_position
        violations.integer("from_position", from_position, 1, LARGEST)
    elif start == "from_time":
        from_time = _at_or_after(violations, request.from_time)
    elif start == "from_end" and not request.from_end:
        violations.add("from_end", "is false: leave it out to begin at position 1")
    chosen = _filter(violations, request.filter)
    violations.integer("max_events", request.max_events, 0, _MAX_EVENTS_IN_ANSWER)
    violations.check()
    max_events = request.max_events or _DEFAULT_EVENTS_IN_ANSWER
    return Wanted(token, from_position, from_time, start == "from_end", chosen, max_events)


def check_aggregate_state(request: GetAggregateStateRequest, latest_time: int) -> WantedState:
    """The request, read. `latest_time` (microseconds since 1970) is the last that does not lie in the future.

    Raises:
        InvalidRequest: see the contract.
    """
    violations = Violations()
    violations.identifier("aggregate_id", request.aggregate_id)
    at = request.WhichOneof("at")
    version = position = time = None
    if at == "version":
        version = request.version
        violations.integer("version", version, 1, LARGEST)
    elif at == "position":
        position = request.position
        violations.integer("position", position, 1, LARGEST)
    elif at == "time":
        time = violations.timestamp("time", request.time, latest=latest_time)
    violations.check()
    return WantedState(request.aggregate_id, version, position, time)


def check_causation_tree(request: GetCausationTreeRequest) -> WantedTree:
    """The request, read.

    Raises:
        InvalidRequest: see the contract.
    """
    violations = Violations()
    of = request.WhichOneof("of")
    correlation_id = position = None
    if of == "correlation_id":
        correlation_id = request.correlation_id
        violations.text("correlation_id", correlation_id, 1, _MAX_ID_LENGTH)
    elif of == "position":
        position = request.position
        violations.integer("position", position, 1, LARGEST)
    else:
        violations.add("of", "is required: give correlation_id or position")
    violations.integer("max_events", request.max_events, 0, _MAX_TREE_EVENTS)
    violations.check()
    return WantedTree(correlation_id, position, request.max_events or _DEFAULT_TREE_EVENTS)


def _filter(violations: Violations, wire: EventFilter) -> LogFilter:
    def type_name(field: str, value: str) -> None:
        violations.text(field, value, 1, _MAX_TYPE_LENGTH)

    _each(violations, "filter.aggregate_types", wire.aggregate_types, _MAX_TYPES, type_name)
    _each(violations, "filter.event_types", wire.event_types, _MAX_TYPES, type_name)
    _each(violations, "filter.aggregate_ids", wire.aggregate_ids, _MAX_IDS, violations.identifier)
    return LogFilter(frozenset(wire.aggregate_types), frozenset(wire.event_types), frozenset(wire.aggregate_ids))


def _each(
    violations: Violations, field: str, values: Iterable[str], most: int, check: Callable[[str, str], None]
) -> None:
    listed = list(values)
    if len(listed) > most:
        violations.add(field, f"has {len(listed)} entries, must have at most {most}")
        return
    for index, value in enumerate(listed):
        check(f"{field}[{index}]", value)


def _at_or_after(violations: Violations, time: Timestamp) -> int:
    """The first microsecond that is not before `time`: record times are no finer."""
    return violations.timestamp("from_time", time) + (1 if time.nanos % 1000 else 0)


def _at_or_before(violations: Violations, time: Timestamp) -> int:
    return violations.timestamp("from_time", time)
