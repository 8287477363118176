"""Compares what heartbeats say of the log with the checkpoint, so that a log that was restored is noticed at once.

A heartbeat is only a hint: it may be late, or of another log on the same subject. It leads to a look at the log itself.
"""

from __future__ import annotations

from cqrs.projection.checkpoint import Checkpoint
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat

_BEHIND_HEARTBEATS = 3
"""So many heartbeats in a row behind a checkpoint that does not move: the log has lost events. One or two are late."""


class HistoryWatch:
    """Looks at heartbeats for one projection. Belongs to the event loop."""

    def __init__(self) -> None:
        self._checkpoint: Checkpoint | None = None
        self._behind = 0
        self._suspect = ""
        self._foreign: set[str] = set()
        self.suspicion = ""
        """Why the log should be asked whether it has the checkpoint's event; empty: nothing is wrong."""

    def stands(self, checkpoint: Checkpoint) -> None:
        """The read model is here now."""
        if self._checkpoint != checkpoint:
            self._checkpoint = checkpoint
            self._behind = 0
            self.suspicion = ""

    def heard(self, heartbeat: LogHeartbeat) -> bool:
        """Take in a heartbeat; returns whether it is of the checkpoint's history, as far as one can tell."""
        checkpoint = self._checkpoint
        if checkpoint is None or not checkpoint.epoch:
            return True
        if heartbeat.epoch in self._foreign:
            return False
        text = self._difference(heartbeat, checkpoint)
        if text:
            self.suspicion, self._suspect = text, heartbeat.epoch
        return not text

    def confirmed(self) -> bool:
        """The log was asked, and has the checkpoint's event. Returns whether the heartbeats are of another log then."""
        checkpoint = self._checkpoint
        foreign = checkpoint is not None and self._suspect != checkpoint.epoch
        if foreign:
            self._foreign.add(self._suspect)
        self.suspicion, self._behind = "", 0
        return foreign

    def _difference(self, heartbeat: LogHeartbeat, checkpoint: Checkpoint) -> str:
        if heartbeat.epoch != checkpoint.epoch:
            return f"heartbeats are of epoch {heartbeat.epoch}, the read model of epoch {checkpoint.epoch}"
        if heartbeat.position == checkpoint.position and heartbeat.hash != checkpoint.hash:
            return (
                f"heartbeats say that the log's event at position {checkpoint.position} has hash "
                f"{heartbeat.hash.hex()}, the read model applied one of hash {checkpoint.hash.hex()}"
            )
        self._behind = self._behind + 1 if heartbeat.position < checkpoint.position else 0
        if self._behind >= _BEHIND_HEARTBEATS:
            return (
                f"heartbeats say that the log ends at position {heartbeat.position}, the read model is at "
                f"{checkpoint.position}"
            )
        return ""
