"""The end of the log, read once for all subscribers of a process (ADR 15).

Whoever follows the log takes the newest events from here, as long as they are still here; who is behind reads pages of
the write DB. Both are asked by position, and positions have no gap: so there is no moment at which a subscriber changes
from the one to the other that could lose or repeat an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from command_server.events.frames import Frame, frame_of
from command_server.events.metrics import SubscriptionMetrics
from command_server.events.store_access import ReaderThreads
from cqrs.errors import HistoryChanged, ShuttingDown
from cqrs.records import LogHead, chain_hash
from cqrs.serving.logging import get_logger
from cqrs.store.port import ENVELOPE_BYTES, StoreError
from cqrs.store.queries import LogQueries

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024

_log = get_logger(__name__)


class TailLimits(NamedTuple):
    """What a tail keeps in memory, at most, and how often it looks when nobody tells it."""

    events: int = 10_000
    bytes: int = 16 * 1024 * 1024
    poll_seconds: float = 0.25
    """Another host's commits are found only by looking; those of this host are told."""


class _Part(NamedTuple):
    """What one read has found."""

    head: LogHead
    frames: list[Frame]
    last_hash: bytes
    """Of the last of these events, or of the one before them if there are none."""


class Tail:
    """The newest events of one history, from the head on at which it began."""

    def __init__(
        self,
        head: LogHead,
        queries: LogQueries,
        threads: ReaderThreads,
        metrics: SubscriptionMetrics,
        limits: TailLimits,
    ) -> None:
        """Begin behind `head`, reading by `queries` on `threads`."""
        self.epoch = head.epoch
        self.head = head.position
        """The log's head, as it was last seen."""
        self.end = head.position + 1
        """The first position that has not been read yet."""
        self.error: Exception | None = None
        """What has ended it: nothing comes any more, and every subscriber ends with this."""
        self.changed = asyncio.Event()
        """Set when there is more, or it has ended. To be taken anew for each wait: it is another one from then on."""
        self.users = 0
        """Subscribers that follow it."""
        self._queries = queries
        self._threads = threads
        self._metrics = metrics
        self._limits = limits
        self._last_hash = head.hash
        self._frames: list[Frame] = []
        self._bytes = 0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def first(self) -> int:
        """The first position that is in memory; `end`: none is."""
        return self.end - len(self._frames)

    def slice(self, position: int, limit: int) -> list[Frame]:
        """At most `limit` events from a position on, which is in memory."""
        start = position - self.first
        return self._frames[start : start + limit]

    def head_moved(self, position: int) -> None:
        """The log has got to this position."""
        if position > self.head:
            self._woken.set()

    def start(self, draining: asyncio.Event) -> None:
        """Read on until an error, or until `draining` is set, or `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run(draining), name="tail of the log")

    def stop(self) -> None:
        """Nobody uses it any more."""
        if self._task is not None:
            self._task.cancel()
        self._forget(len(self._frames))

    async def _run(self, draining: asyncio.Event) -> None:
        reading = asyncio.ensure_future(self._read_on())
        stopping = asyncio.ensure_future(draining.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            error = reading.exception() if reading.done() else ShuttingDown()
            self.error = error if isinstance(error, Exception) else ShuttingDown()
            if not isinstance(error, ShuttingDown):
                _log.warning("all subscriptions to the log end", subscriptions=self.users, error=str(error))
            self._tell()
        finally:
            reading.cancel()
            stopping.cancel()
            self._forget(len(self._frames))

    async def _read_on(self) -> None:
        while True:
            self._woken.clear()
            part = await self._threads.read_patiently(partial(self._read, self.end, self._last_hash))
            self._add(part)
            if self.end > part.head.position:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._limits.poll_seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    def _read(self, position: int, previous_hash: bytes) -> _Part:
        """The next events, on a thread. Invariant 6: they must continue what was delivered before."""
        head, events, _ = self._queries.read_page(position, _PAGE_EVENTS, _PAGE_BYTES)
        if head.epoch != self.epoch or head.position < position - 1:
            raise HistoryChanged(self.epoch, head.epoch)
        if not events and head.position < position:
            return _Part(head, [], previous_hash)
        if [event.position for event in events] != list(range(position, position + len(events))) or not events:
            raise StoreError(f"the log has a gap behind position {position - 1}: run `orderstream log verify`")
        if chain_hash(previous_hash, events[0]) != events[0].hash:
            raise HistoryChanged(self.epoch, head.epoch)
        return _Part(head, [frame_of(event) for event in events], events[-1].hash)

    def _add(self, part: _Part) -> None:
        self.head = part.head.position
        self._last_hash = part.last_hash
        if not part.frames:
            return
        self._frames += part.frames
        self.end += len(part.frames)
        size = sum(map(_size, part.frames))
        self._bytes += size
        self._metrics.pages.inc()
        self._metrics.tail_events.inc(len(part.frames))
        self._metrics.tail_bytes.inc(size)
        surplus = max(0, len(self._frames) - self._limits.events)
        left = self._bytes - sum(map(_size, self._frames[:surplus]))
        while left > self._limits.bytes and surplus < len(self._frames) - 1:
            left -= _size(self._frames[surplus])
            surplus += 1
        self._forget(surplus)
        self._tell()

    def _forget(self, count: int) -> None:
        """Drop the oldest."""
        size = sum(map(_size, self._frames[:count]))
        del self._frames[:count]
        self._bytes -= size
        self._metrics.tail_events.dec(count)
        self._metrics.tail_bytes.dec(size)

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class SharedTail:
    """The tail that the subscribers of this process share. There is one while there are any."""

    def __init__(
        self,
        queries: LogQueries,
        threads: ReaderThreads,
        metrics: SubscriptionMetrics,
        limits: TailLimits,
        draining: asyncio.Event,
    ) -> None:
        """Have tails read by `queries` on `threads`, which should have one for them alone, until `draining` is set."""
        self._queries = queries
        self._threads = threads
        self._metrics = metrics
        self._limits = limits
        self._draining = draining
        self._tail: Tail | None = None

    def head_moved(self, position: int) -> None:
        """The log has got to this position."""
        if self._tail is not None:
            self._tail.head_moved(position)

    @contextmanager
    def follow(self, head: LogHead) -> Iterator[Tail]:
        """The tail of the history that `head` is of, for as long as the context is open."""
        tail = self._tail
        if tail is None or tail.error is not None or tail.epoch != head.epoch:
            tail = self._tail = Tail(head, self._queries, self._threads, self._metrics, self._limits)
            tail.start(self._draining)
        tail.users += 1
        try:
            yield tail
        finally:
            tail.users -= 1
            if not tail.users:
                tail.stop()
                if self._tail is tail:
                    self._tail = None


def _size(frame: Frame) -> int:
    """What a frame takes in memory, about."""
    return len(frame.data) + ENVELOPE_BYTES
