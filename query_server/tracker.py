"""How far a projection has got, as the query server knows it, and what that means for what is cached.

Two positions are kept apart (DESIGN, invariant 10):

- `checkpoint`: the newest position that the read DB is known to show, from whatever source. Calls that wait for a
  consistency token wait for this one.
- `reached`: up to here every change has been applied to the cache. It follows the projector's notifications as long as
  each begins where the last one ended. Whatever breaks that chain (a gap, a reconnect, a checkpoint that moves and no
  notification tells it) flushes the cache, after which nothing in it is older than `reached`.

While no notifications can come (the broker is away), the checkpoint poller takes their place: each advance is a flush.

Belongs to the event loop; nothing here is thread safe.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import NamedTuple, Protocol

from cqrs.serving.logging import get_logger
from query_server.reader import Snapshot

_SILENCE_SECONDS = 1.0
"""How long a checkpoint may be ahead of the notifications before one is taken to be lost."""

_MOST_WITHDRAWN = 64
"""Waiters that gave up stay in the heap until there are more of them than this and than of the others."""

_MOST_MARKS = 32
"""How many (position, record time) pairs ahead of `reached` are remembered."""


_log = get_logger(__name__)


class Cached(Protocol):
    """What the tracker keeps honest: the cache of a projection's answers."""

    def invalidate(self, keys: Collection[str], position: int) -> None:
        """These keys' rows changed at or before `position`; what was read at or after it shows the change."""

    def flush(self) -> None:
        """Forget everything."""


class Mark(NamedTuple):
    """What was known when a read began."""

    incarnation: int
    flushes: int
    checkpoint: int
    reached: int


class ProjectionTracker:
    """One projection's positions."""

    def __init__(self, projection: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.projection = projection
        self.epoch = ""
        """The log's epoch, a UUID; empty until the read DB has told it."""
        self.generation = 0
        self.checkpoint = 0
        self.reached = 0
        self.as_of = (0, 0)
        """The newest position at or before `reached` whose record time is known, and that time (µs since 1970)."""
        self.version = 0
        """Changes whenever anything above does."""
        self.fed = False
        """Whether notifications come in."""
        self.flushes: Counter[str] = Counter()
        """How often the cache was flushed, by reason."""
        self.waiting = 0
        """How many calls wait for this projection to get further."""
        self._clock = clock
        self._cached: list[Cached] = []
        self._source = 0
        self._incarnation = 0
        self._flush_count = 0
        self._ahead: tuple[int, float] | None = None
        self._marks: list[tuple[int, int]] = []
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._serial = count()

    def attach(self, cached: Cached) -> None:
        """Keep this cache honest from now on."""
        self._cached.append(cached)

    # What the read DB says

    def begin_read(self) -> Mark:
        """To be called before a read of the read DB begins; `end_read` wants it back."""
        return Mark(self._incarnation, self._flush_count, self.checkpoint, self.reached)

    def end_read(self, mark: Mark, snapshot: Snapshot) -> None:
        """Take in what a read saw. Reads may end in another order than they began."""
        if mark.incarnation != self._incarnation:
            return  # began before the history was replaced: tells nothing about the present one
        known = (self._source, self.generation, self.epoch)
        if known != (snapshot.source, snapshot.generation, snapshot.epoch) or snapshot.position < mark.checkpoint:
            self._begin_incarnation(snapshot)
            return
        if snapshot.position > self.checkpoint:
            self.checkpoint = snapshot.position
            self._wake()
            if self.fed:
                if self._ahead is None:
                    self._ahead = (snapshot.position, self._clock())
            else:
                self._flush("polled", snapshot.position)
            self.version += 1
        self.note_time(snapshot.position, snapshot.record_time)
        self.check_silence()

    def may_store(self, mark: Mark, snapshot: Snapshot, invalidated: int) -> bool:
        """Whether an answer may be cached that was read in `snapshot` by a read that began at `mark`.

        Call it after `end_read`. No, if a change may have passed by that the snapshot does not show: `invalidated` is
        the newest position at which the answer's key is known to have changed since the read began.
        """
        if (snapshot.source, snapshot.generation, snapshot.epoch) != (self._source, self.generation, self.epoch):
            return False
        if invalidated > snapshot.position:
            return False
        if snapshot.position >= self.reached:
            return True
        return mark.flushes == self._flush_count and snapshot.position >= mark.reached

    # What the projector says

    def feed_began(self) -> None:
        """Notifications will come from now on. Some may have been missed before: everything is forgotten."""
        self.fed = True
        self._ahead = None
        self._flush("connected", self.checkpoint)

    def feed_ended(self) -> None:
        """Notifications may be missed from now on."""
        self.fed = False
        self._ahead = None
        self._flush("disconnected", self.checkpoint)

    def notified(
        self,
        *,
        generation: int,
        epoch: str,
        first: int,
        last: int,
        keys: Sequence[str],
        record_time: int,
        flush: bool = False,
    ) -> bool:
        """The projector has committed: the checkpoint went from `first` to `last`, and the rows behind `keys` changed.

        `record_time` is that of `last`, in microseconds since 1970: what is cached is as of then from here on.

        Returns False if that is not about the generation and history that are served, as far as they are known here:
        then the read DB should be asked.
        """
        if generation != self.generation or epoch != self.epoch:
            return False
        if last <= self.reached:
            return True  # what is cached was read later
        if last > self.checkpoint:
            self.checkpoint = last
            self._wake()
        if not self.fed:
            # Before the subscription is known to be complete, a notification is no more than news of the checkpoint.
            self._flush("polled", last)
        elif first > self.reached:
            self._flush("gap", last)
        elif flush:
            self._flush("asked", last)
        else:
            for cached in self._cached:
                cached.invalidate(keys, last)
            self._reach(last)
        if self._ahead is not None and self._ahead[0] <= last:
            self._ahead = (self.checkpoint, self._clock()) if self.checkpoint > last else None
        self.note_time(last, record_time)
        self.version += 1
        return True

    def check_silence(self) -> None:
        """Flush if the read DB has moved on and the notification of that has not come in a good while."""
        if self._ahead is not None and self._clock() - self._ahead[1] >= _SILENCE_SECONDS:
            _log.warning(
                "the read DB has moved on without a notification: cache flushed",
                projection=self.projection,
                notified=self.reached,
                checkpoint=self.checkpoint,
            )
            self._ahead = None
            self._flush("silence", self.checkpoint)

    def note_time(self, position: int, record_time: int) -> None:
        """The event at `position` was recorded at `record_time` (µs since 1970)."""
        if position <= self.as_of[0]:
            return
        if position <= self.reached:
            self.as_of = (position, record_time)
            self.version += 1
        elif not self._marks or position > self._marks[-1][0]:
            if len(self._marks) == _MOST_MARKS:
                del self._marks[1::2]
            self._marks.append((position, record_time))

    # Who waits

    async def wait(self, position: int, seconds: float) -> None:
        """Return once the checkpoint is at `position`, the history is another one, or `seconds` have passed."""
        future = asyncio.get_running_loop().create_future()
        self.waiting += 1
        heapq.heappush(self._heap, (position, next(self._serial), future))
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass  # the caller looks at the checkpoint again
        finally:
            self.waiting -= 1
            if len(self._heap) > _MOST_WITHDRAWN + 2 * self.waiting:
                self._heap = [entry for entry in self._heap if not entry[2].done()]
                heapq.heapify(self._heap)

    def _wake(self, *, everybody: bool = False) -> None:
        while self._heap and (everybody or self._heap[0][0] <= self.checkpoint):
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)

    def _begin_incarnation(self, snapshot: Snapshot) -> None:
        """The read DB shows another history or generation, or has gone back: nothing known before holds."""
        if self._incarnation and (snapshot.generation or self.generation):
            _log.info(
                "another generation or history is served: cache flushed",
                projection=self.projection,
                generation=snapshot.generation,
                epoch=snapshot.epoch,
                position=snapshot.position,
                position_before=self.checkpoint,
            )
        self._incarnation += 1
        self._source, self.generation, self.epoch = snapshot.source, snapshot.generation, snapshot.epoch
        self.checkpoint = snapshot.position
        self._ahead = None
        self._marks.clear()
        self.as_of = (0, 0)
        self._flush("replaced", snapshot.position)
        self.note_time(snapshot.position, snapshot.record_time)
        self._wake(everybody=True)
        self.version += 1

    def _flush(self, reason: str, reached: int) -> None:
        self.flushes[reason] += 1
        self._flush_count += 1
        for cached in self._cached:
            cached.flush()
        self._reach(reached)

    def _reach(self, position: int) -> None:
        self.reached = position
        marks = self._marks
        while marks and marks[0][0] <= position:
            self.as_of = marks.pop(0)
        self.version += 1
