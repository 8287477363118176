"""The log's epochs: which histories it has been, and where each turned into the next. Invariant 6.

A restore to an older point begins a new epoch. Up to its fork position it is the history before it; what that had
beyond is the lost branch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from cqrs.errors import OrderstreamError
from cqrs.store.schema import log_epochs, log_head


class LogEpoch(NamedTuple):
    """One history: a row of `log_epochs`."""

    epoch: str
    """A UUID."""
    fork_position: int
    """The last position that it shares with the epoch before it; 0 for the first."""
    start_time: int
    """When it began, in microseconds since 1970."""


class CannotFork(OrderstreamError):
    """The log has no such point to fork at."""


def read_epochs(connection: sa.Connection) -> list[LogEpoch]:
    """All epochs of the log, oldest first; the last one is the present one."""
    statement = sa.select(*log_epochs.columns).order_by(log_epochs.c.start_time, log_epochs.c.fork_position)
    return [LogEpoch(row.epoch, row.fork_position, row.start_time) for row in connection.execute(statement)]


def shared_positions(epochs: Sequence[LogEpoch]) -> dict[str, int]:
    """For each earlier epoch, the last position up to which the present log is that history."""
    shared: dict[str, int] = {}
    for index, epoch in enumerate(epochs[:-1]):
        shared[epoch.epoch] = min(later.fork_position for later in epochs[index + 1 :])
    return shared


def begin_epoch(connection: sa.Connection, fork_position: int | None = None) -> LogEpoch:
    """Begin a new epoch at `fork_position`, or else at the head; returns it. To be called in a writing transaction.

    Raises:
        CannotFork: the position lies beyond the head, or before the present epoch began.
    """
    # Locks the head, as appending does: no command can slip in between.
    head = connection.execute(sa.select(log_head.c.position).with_for_update()).one()
    position = head.position if fork_position is None else fork_position
    epochs = read_epochs(connection)
    if position > head.position:
        raise CannotFork(f"the log ends at position {head.position}: it cannot fork at {position}")
    if epochs and position < epochs[-1].fork_position:
        raise CannotFork(
            f"the present epoch began at position {epochs[-1].fork_position}: no other can begin before, at {position}"
        )
    # Clocks may have gone back since the last restore; the order of epochs must not.
    newest = max((epoch.start_time for epoch in epochs), default=0)
    new = LogEpoch(str(uuid4()), position, max(time.time_ns() // 1000, newest + 1))
    connection.execute(log_epochs.insert().values(**new._asdict()))
    connection.execute(log_head.update().values(epoch=new.epoch))
    return new
