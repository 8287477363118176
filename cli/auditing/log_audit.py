"""Audits the log by itself: positions, hash chain, versions, times, head, epochs. Invariants 2, 3 and 6.

And against heads of it that were kept elsewhere: a log that was rewritten as a whole is right in itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from cli.auditing.checks import Check, FirstProblem
from cli.auditing.log_source import LogSource, Row, Unreadable
from cqrs.head_line import time_text
from cqrs.records import GENESIS_HASH, EventRecord, LogHead, hash_columns
from cqrs.store.epochs import LogEpoch, shared_positions

_PART_BYTES = 16 * 1024 * 1024

_POSITION, _EVENT_TYPE, _RECORD_TIME, _HASH, _REASON = (
    EventRecord._fields.index(name) for name in ("position", "event_type", "record_time", "hash", "reason")
)


class LogAudit:
    """Goes through a log once, in order. Needs the same memory whatever the log's length.

    Args:
        source: the log.
        kept: heads of this log, as it was earlier.
    """

    def __init__(self, source: LogSource, kept: Sequence[LogHead] = ()) -> None:
        self._source = source
        self._kept = kept
        self.head = source.head()
        """Where the log ended when the audit began."""
        self._events = 0
        self._position = 0
        self._hash = GENESIS_HASH
        self._record_time = 0
        self._stopped = ""
        self._gap = FirstProblem()
        self._chain = FirstProblem()
        self._version = FirstProblem()
        self._time = FirstProblem()
        self._head_problem = FirstProblem()

    @property
    def position(self) -> int:
        """How far the audit has got."""
        return self._position

    def next_part(self, end: int, count: int) -> list[Row]:
        """Check the next `count` events up to position `end`, and return them; none: it is done, or cannot go on."""
        if self._stopped or self._position >= end:
            return []
        first = self._position + 1
        try:
            rows = self._source.read(first, end, count, _PART_BYTES)
        except Unreadable as error:
            self._stopped = str(error)
            self._chain.found(self._stopped, error.position)
            return []
        if rows:
            self._feed(rows)
            wrong = self._source.wrong_version(first, self._position)
            if wrong is not None:
                self._version.found(wrong.text, wrong.position)
        return rows

    def finish(self) -> LogHead:
        """Check what only the whole shows; returns the head as it is now (a running system appends meanwhile)."""
        twice = self._source.version_twice()
        if twice is not None:
            self._version.found(twice.text, twice.position)
        if self._position < self.head.position and not self._stopped:
            self._head_problem.found(
                f"the head says {self.head.position}, the last event is at {self._position}", self._position + 1
            )
        while True:
            head = self._source.head()
            beyond = self._source.beyond(head.position)
            if beyond is None:
                return head
            if self._source.head() == head:
                where = beyond if isinstance(beyond, int) else 0
                self._head_problem.found(f"the head says {head.position}, but there is an event at {beyond}", where)
                return head

    def checks(self) -> list[Check]:
        """What was found. To be called after `finish`."""
        events, stopped = self._events, self._stopped
        of_events = (
            ("positions have no gap", self._gap),
            ("the hash chain is intact", self._chain),
            ("versions have no gap in any aggregate", self._version),
            ("record times never run backwards", self._time),
        )
        note = f"position {self.head.position:,}"
        return [
            *(
                Check("log", rule, events, found.text, position=found.position, unchecked=stopped)
                for rule, found in of_events
            ),
            Check(
                "log",
                "the head is the last event",
                1,
                self._head_problem.text,
                note,
                self._head_problem.position,
                stopped,
            ),
            *self._epoch_checks(),
        ]

    def _feed(self, rows: Sequence[Row]) -> None:
        position, previous, time = self._position, self._hash, self._record_time
        for row in rows:
            if row[_POSITION] != position + 1:
                self._gap.found(f"position {position} is followed by {row[_POSITION]}", position + 1)
            position = row[_POSITION]
            computed = _hash(previous, row)
            previous = row[_HASH]
            if computed != previous:
                self._chain.found(
                    f"position {position} ({row[_EVENT_TYPE]}) does not chain from the event before: its columns give "
                    f"the hash {computed.hex() or '(none)'}, stored is {_text(previous)}",
                    position,
                )
            if not isinstance(row[_RECORD_TIME], int):
                self._time.found(f"position {position} has {row[_RECORD_TIME]!r} as its record time", position)
            else:
                if row[_RECORD_TIME] < time:
                    earlier = time - row[_RECORD_TIME]
                    self._time.found(
                        f"position {position} was recorded {earlier} µs before the event before it", position
                    )
                time = row[_RECORD_TIME]
            if position == self.head.position and (previous, time) != (self.head.hash, self.head.record_time):
                self._head_problem.found(f"hash or record time of position {position} is not the head's", position)
        self._events += len(rows)
        self._position, self._hash, self._record_time = position, previous, time

    def _epoch_checks(self) -> list[Check]:
        epochs = self._source.epochs()
        problem = _wrong_epochs(epochs, self.head)
        rule = "its epochs follow each other, and the head is of the last"
        return [
            Check("log", rule, len(epochs), problem, f"epoch {self.head.epoch}"),
            *(self._kept_check(kept, epochs) for kept in self._kept),
        ]

    def _kept_check(self, kept: LogHead, epochs: Sequence[LogEpoch]) -> Check:
        rule = f"it goes on from the head of position {kept.position:,} that was kept"
        problem = FirstProblem()
        # The same hash at the same position is the same log up to there, whatever epochs it has had since.
        row = self._source.row(kept.position) if kept.position else None
        holds = kept.hash == GENESIS_HASH if not kept.position else row is not None and _is_head(row, kept)
        if not holds:
            self._explain_kept(kept, row, epochs, problem)
        note = f"of {time_text(kept.record_time)}" if kept.position else ""
        return Check("log", rule, 1, problem.text, note, problem.position)

    def _explain_kept(self, kept: LogHead, row: Row | None, epochs: Sequence[LogEpoch], problem: FirstProblem) -> None:
        shared = shared_positions(epochs).get(kept.epoch)
        if kept.epoch not in {epoch.epoch for epoch in epochs}:
            problem.found(f"the kept head is of epoch {kept.epoch}, which this log never had: it is of another log")
        elif not kept.position:
            problem.found("it says that an empty log has a hash")
        elif shared is not None and kept.position > shared:
            after = [each.epoch for each in epochs].index(kept.epoch) + 1
            later = min(epochs[after:], key=lambda each: each.fork_position)
            problem.found(
                f"its epoch was left at position {shared:,}, by a restore on {time_text(later.start_time)}: events "
                f"{shared + 1:,} to {kept.position:,} that it stands for are not in this log",
                shared + 1,
            )
        elif kept.position > self.head.position:
            problem.found(
                f"the log ends at {self.head.position:,}: events {self.head.position + 1:,} to {kept.position:,} are "
                "missing, and no restore is recorded",
                self.head.position + 1,
            )
        elif row is None:
            problem.found(f"the log has no event at position {kept.position:,}", kept.position)
        else:
            problem.found(
                f"the event at position {kept.position:,} has the hash {_text(row[_HASH])}, the kept head has "
                f"{kept.hash.hex()}: this event or one before it was changed, and the hashes computed anew",
                kept.position,
            )


def _is_head(row: Row, head: LogHead) -> bool:
    return (row[_HASH], row[_RECORD_TIME]) == (head.hash, head.record_time)


def _hash(previous: bytes, row: Row) -> bytes:
    """What the hash of a row must be; empty for a row that can have none."""
    try:
        return hash_columns(previous, row, row[_REASON] if len(row) > _REASON else None)
    except Exception:  # noqa: BLE001 - values of whatever type somebody put there
        return b""


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)


def _wrong_epochs(epochs: Sequence[LogEpoch], head: LogHead) -> str:
    """What is wrong with the log's epochs; empty if nothing is."""
    if not epochs:
        return "the write DB has no row in log_epochs"
    if epochs[0].fork_position != 0:
        return f"the first epoch, {epochs[0].epoch}, has fork position {epochs[0].fork_position}, not 0"
    for earlier, later in pairwise(epochs):
        if later.fork_position < earlier.fork_position:
            return (
                f"epoch {later.epoch} forks at {later.fork_position}, before its predecessor began at "
                f"{earlier.fork_position}"
            )
    if epochs[-1].fork_position > head.position:
        return f"epoch {epochs[-1].epoch} forks at {epochs[-1].fork_position}, the log ends at {head.position}"
    if epochs[-1].epoch != head.epoch:
        return f"the head is of epoch {head.epoch}, the last epoch is {epochs[-1].epoch}"
    return ""
