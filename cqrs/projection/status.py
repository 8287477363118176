"""What can be said about a projection: for operators, health and metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orderstream.projections.v1.projection_service_pb2 import ProjectionState

STARTING = ProjectionState.PROJECTION_STATE_STARTING
CATCHING_UP = ProjectionState.PROJECTION_STATE_CATCHING_UP
LIVE = ProjectionState.PROJECTION_STATE_LIVE
RETRYING = ProjectionState.PROJECTION_STATE_RETRYING
HALTED = ProjectionState.PROJECTION_STATE_HALTED

WORKING = frozenset({CATCHING_UP, LIVE})
"""States in which nothing stands in the way."""

_SAMPLE_SECONDS = 0.1
_MAX_SAMPLES = 4096


class LagClock:
    """Tells how long the oldest event that is known and not applied has been known. Precise to a tenth of a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heard: deque[tuple[int, float]] = deque()
        self.log_position = 0
        """The newest log position heard of; 0: none."""
        self._applied = 0

    def heard(self, position: int) -> None:
        """The log is known to hold this position."""
        if position <= self.log_position:
            return
        self.log_position = position
        if position <= self._applied:
            return
        now = self._now()
        if self._heard and (now - self._heard[-1][1] < _SAMPLE_SECONDS or len(self._heard) >= _MAX_SAMPLES):
            self._heard[-1] = (position, self._heard[-1][1])
        else:
            self._heard.append((position, now))

    def applied(self, position: int) -> None:
        """The read model shows this position."""
        self._applied = position
        self.log_position = max(self.log_position, position)
        while self._heard and self._heard[0][0] <= position:
            self._heard.popleft()

    @property
    def events(self) -> int:
        """Events that are known and not applied."""
        return self.log_position - self._applied

    @property
    def seconds(self) -> float:
        """How long the oldest of them has been known; 0.0 when there is none."""
        return self._now() - self._heard[0][1] if self._heard else 0.0


@dataclass
class ProjectionStatus:
    """Where one projection stands. Written by its runner only, on the event loop's thread."""

    name: str
    generation: int = 0
    state: ProjectionState.ValueType = STARTING
    position: int = 0
    position_time: int = 0
    """Record time of the position, microseconds since 1970; 0 at position 0."""
    alive_time: int = 0
    """When it last made progress or saw that there was nothing to do, microseconds since 1970; 0: never."""
    applied_events: int = 0
    """Since the process started."""
    commits: int = 0
    retries: int = 0
    healed_events: int = 0
    """Events that came from EventService because the stream lacked them."""
    error: str = ""
    """What stands in the way; empty in the states WORKING and STARTING."""
    lag: LagClock = field(default_factory=LagClock)
