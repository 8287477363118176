"""Audits the log by itself: positions, hash chain, versions, times, head. Invariants 2, 3 and 6."""

from __future__ import annotations

from collections.abc import Sequence

from cli.auditing.checks import Check, FirstProblem
from cqrs.records import GENESIS_HASH, EventRecord, LogHead, chain_hash


class LogAudit:
    """Takes the log in, in order. Keeps one number per aggregate."""

    def __init__(self, head: LogHead) -> None:
        """Begin an audit of a log whose head is, or was a moment ago, `head`."""
        self._head = head
        self._events = 0
        self._position = 0
        self._hash = GENESIS_HASH
        self._record_time = 0
        self._versions: dict[str, int] = {}
        self._types: dict[str, str] = {}
        self._gap = FirstProblem()
        self._chain = FirstProblem()
        self._version = FirstProblem()
        self._time = FirstProblem()
        self._head_problem = FirstProblem()

    def feed(self, records: Sequence[EventRecord]) -> None:
        """The next events of the log."""
        for record in records:
            if record.position != self._position + 1:
                self._gap.found(f"position {self._position} is followed by {record.position}")
            if chain_hash(self._hash, record) != record.hash:
                self._chain.found(
                    f"position {record.position} ({record.event_type}) does not chain from the event before"
                )
            self._feed_version(record)
            if record.record_time < self._record_time:
                earlier = self._record_time - record.record_time
                self._time.found(f"position {record.position} was recorded {earlier} µs before the event before it")
            if record.position == self._head.position and (record.hash, record.record_time) != (
                self._head.hash,
                self._head.record_time,
            ):
                self._head_problem.found(f"hash or record time of position {record.position} is not the head's")
            self._events += 1
            self._position, self._hash, self._record_time = record.position, record.hash, record.record_time

    def beyond(self, head: LogHead, record: EventRecord) -> None:
        """There is an event behind the head, as the log is now."""
        self._head_problem.found(f"the head says {head.position}, but there is an event at {record.position}")

    def checks(self) -> list[Check]:
        """What was found in what was fed."""
        if self._position < self._head.position:
            self._head_problem.found(f"the head says {self._head.position}, the last event is at {self._position}")
        events, aggregates = self._events, len(self._versions)
        return [
            Check("log", "positions have no gap", events, self._gap.text),
            Check("log", "the hash chain is intact", events, self._chain.text),
            Check("log", "versions have no gap in any aggregate", aggregates, self._version.text),
            Check("log", "record times never run backwards", events, self._time.text),
            Check("log", "the head is the last event", 1, self._head_problem.text, f"position {self._head.position:,}"),
        ]

    def _feed_version(self, record: EventRecord) -> None:
        last = self._versions.get(record.aggregate_id, 0)
        if record.version != last + 1:
            self._version.found(
                f"position {record.position}: {record.aggregate_id} goes from version {last} to {record.version}"
            )
        if self._types.setdefault(record.aggregate_id, record.aggregate_type) != record.aggregate_type:
            self._version.found(f"position {record.position}: {record.aggregate_id} is of two types")
        self._versions[record.aggregate_id] = record.version
