"""What an answer says about its age: the Freshness and the consistency token at its end.

All responses of the query services have them in fields 2 and 3, so that one serialised tail fits behind every body: the
bytes of two protobuf messages joined are their merge. The tail of what the cache holds is the same for all answers
until something changes, and is made once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from cqrs.records import to_timestamp
from cqrs.tokens import encode_token_bytes
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.orders.v1.queries_pb2 import GetOrderResponse
from orderstream.types.v1.freshness_pb2 import FreshnessState
from query_server.cache import Answer
from query_server.reader import Snapshot
from query_server.tracker import ProjectionTracker

SILENT_AFTER_SECONDS = 5.0
"""Heartbeats come every second. Without one for this long, nobody knows how far the log has got."""

BEHIND_AFTER_SECONDS = 0.5
"""A read model is a few milliseconds behind a log that grows. Only what lasts longer is worth a word."""

_REFRESH_SECONDS = 0.1
"""How exact `stale_for` is."""

_NEVER = float("inf")
_MOST_HEARD = 256


class LogHead:
    """The newest that was heard from the log, through the relay's heartbeats."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.epoch = ""
        self.position = 0
        self.heard_at = clock()
        """When the last heartbeat came; before the first one, when listening began."""
        self.heard = False
        """Whether there was a heartbeat at all."""
        self.connected = False
        """Whether the broker can be heard."""
        self.version = 0
        """Changes with every heartbeat."""
        self.record_time = 0
        self._clock = clock

    def heartbeat(self, message: LogHeartbeat) -> None:
        """Take in a heartbeat. One that is older than what is known (there may be two relays) only shows life."""
        self.heard_at = self._clock()
        self.heard = True
        self.version += 1
        if message.epoch == self.epoch and message.position < self.position:
            return
        self.epoch = message.epoch
        self.position = message.position
        self.record_time = message.record_time.seconds * 1_000_000 + message.record_time.nanos // 1000

    def connection(self, *, connected: bool) -> None:
        """The broker can be heard, or not."""
        self.connected = connected
        self.version += 1


class FreshnessTails:
    """Makes the ends of one projection's answers."""

    def __init__(
        self, tracker: ProjectionTracker, log: LogHead, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tracker = tracker
        self._log = log
        self._clock = clock
        self._serial = 0
        self._valid_until = 0.0
        self._seen = (-1, -1)
        self._state: FreshnessState.ValueType = FreshnessState.FRESHNESS_STATE_UNSPECIFIED
        self._stale_for = 0.0
        self._log_position = 0
        self._position = -1
        self._shared = b""
        self._heard: list[tuple[int, float]] = []

    def cached(self, answer: Answer) -> bytes:
        """The end of an answer that is kept in the cache, and holds up to what notifications have reached."""
        self._keep_up()
        snapshot = answer.snapshot
        if snapshot.position <= self._position:
            return self._shared
        if answer.tail_serial != self._serial:
            answer.tail = self._encode(snapshot.epoch, snapshot.position, snapshot.record_time)
            answer.tail_serial = self._serial
        return answer.tail

    def fresh(self, snapshot: Snapshot) -> bytes:
        """The end of an answer that was just read."""
        self._keep_up()
        return self._encode(snapshot.epoch, snapshot.position, snapshot.record_time)

    def observe(self) -> tuple[FreshnessState.ValueType, int, float]:
        """State, newest known log position, and for how many seconds the read model has been stale (0: it is not)."""
        self._keep_up()
        return self._state, self._log_position, self._stale_for

    def heartbeat(self) -> None:
        """To be called after each heartbeat: remembers since when the read model has not shown that position."""
        log, tracker = self._log, self._tracker
        if log.epoch == tracker.epoch:
            tracker.note_time(log.position, log.record_time)
        heard = self._heard
        if log.position > tracker.reached and (
            not heard or (log.position > heard[-1][0] and log.heard_at - heard[-1][1] >= _REFRESH_SECONDS)
        ):
            if len(heard) == _MOST_HEARD:
                del heard[1::2]  # the oldest stays: it says for how long
            heard.append((log.position, log.heard_at))

    def _keep_up(self) -> None:
        now = self._clock()
        seen = (self._tracker.version, self._log.version)
        if now >= self._valid_until or seen != self._seen:
            self._seen = seen
            self._refresh(now)

    def _refresh(self, now: float) -> None:
        tracker = self._tracker
        self._serial += 1
        self._state, self._stale_for, self._valid_until = self._judge(now)
        self._position, record_time = tracker.as_of
        self._shared = self._encode(tracker.epoch, self._position, record_time)

    def _judge(self, now: float) -> tuple[FreshnessState.ValueType, float, float]:
        """State, seconds of staleness, and until when that holds if nothing comes."""
        log, tracker = self._log, self._tracker
        heard = self._heard
        while heard and heard[0][0] <= tracker.reached:
            heard.pop(0)
        silent_at = log.heard_at + SILENT_AFTER_SECONDS
        comparable = log.heard and log.epoch == (tracker.epoch or log.epoch)
        # Heartbeats are a second apart: what has been read or notified is news of the log, too.
        self._log_position = max(log.position, tracker.checkpoint) if comparable else log.position
        if not log.connected or not comparable or now > silent_at:
            return FreshnessState.FRESHNESS_STATE_UNKNOWN, now - log.heard_at, now + _REFRESH_SECONDS
        if log.position <= tracker.reached:
            heard.clear()
            return FreshnessState.FRESHNESS_STATE_CURRENT, 0.0, silent_at
        if not heard:
            heard.append((log.position, log.heard_at))
        behind_for = now - heard[0][1]
        if behind_for >= BEHIND_AFTER_SECONDS:
            return FreshnessState.FRESHNESS_STATE_BEHIND, behind_for, now + _REFRESH_SECONDS
        return FreshnessState.FRESHNESS_STATE_CURRENT, 0.0, min(silent_at, heard[0][1] + BEHIND_AFTER_SECONDS)

    def _encode(self, epoch: str, position: int, record_time: int) -> bytes:
        message = GetOrderResponse()
        if epoch:
            message.consistency_token = encode_token_bytes(_epoch_bytes(epoch), position)
        freshness = message.freshness
        freshness.as_of_position = position
        if position:
            freshness.as_of_time.CopyFrom(to_timestamp(record_time))
        state = self._state
        if state == FreshnessState.FRESHNESS_STATE_BEHIND and position >= self._log.position:
            state = FreshnessState.FRESHNESS_STATE_CURRENT  # read just now, and newer than what is cached
        freshness.state = state
        freshness.log_position = self._log_position
        if state != FreshnessState.FRESHNESS_STATE_CURRENT:
            seconds = max(self._stale_for, 0.0)
            freshness.stale_for.seconds = int(seconds)
            freshness.stale_for.nanos = int(seconds % 1 * 1000) * 1_000_000
        return message.SerializeToString()


@lru_cache(maxsize=8)
def _epoch_bytes(epoch: str) -> bytes:
    return UUID(epoch).bytes
