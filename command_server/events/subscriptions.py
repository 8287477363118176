"""Subscribe: the log from a point on, and what comes, to each subscriber at its own pace (ADR 15)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import NamedTuple

from command_server.events.frames import Frame, answer_of, frame_of
from command_server.events.metrics import SubscriptionMetrics
from command_server.events.requests import Wanted
from command_server.events.resume_tokens import ResumeToken
from command_server.events.store_access import ReaderThreads
from command_server.events.tail import SharedTail, Tail
from cqrs.errors import HistoryChanged, Overloaded
from cqrs.records import LogHead
from cqrs.store.epochs import shared_positions
from cqrs.store.queries import LogFilter, LogQueries

_PROGRESS_SECONDS = 1.0
"""How long events may pass that a filter does not choose, without a word to the subscriber."""

_LOOKED_AT = 1_000
"""Events of the tail that a filter is asked about before an answer goes out."""


class _Start(NamedTuple):
    """Where a subscription begins."""

    head: LogHead
    """The head at that moment."""
    next_position: int
    """The first position to look at, at most one past the head."""
    skip_before: int
    """Events at lower positions are not wanted."""
    not_before: int
    """Events recorded earlier (microseconds since 1970) are not wanted."""


class Subscriptions:
    """Serves subscribers, up to a number of them at a time."""

    def __init__(
        self,
        queries: LogQueries,
        threads: ReaderThreads,
        tail: SharedTail,
        metrics: SubscriptionMetrics,
        *,
        max_subscribers: int,
        page_bytes: int,
    ) -> None:
        """Join the parts.

        Args:
            queries: the log.
            threads: for subscribers that are behind.
            tail: for those that are not.
            metrics: of all of them.
            max_subscribers: how many there may be at a time.
            page_bytes: what an answer holds, about, in bytes.
        """
        self._queries = queries
        self._threads = threads
        self._tail = tail
        self._metrics = metrics
        self._max_subscribers = max_subscribers
        self._page_bytes = page_bytes
        self._running = 0

    async def subscribe(self, wanted: Wanted) -> AsyncGenerator[bytes]:
        """Serialised SubscribeResponses without an end. The next is made once the last is on its way.

        Raises:
            Overloaded: there are as many subscribers as there may be.
            HistoryChanged: the token is of a lost branch, or the log was replaced meanwhile.
            ShuttingDown: the server drains.
            StoreUnavailable: the write DB failed, for a subscription that runs: for longer than some seconds.
        """
        if self._running >= self._max_subscribers:
            self._metrics.refused.inc()
            raise Overloaded(
                f"{self._max_subscribers} subscriptions to the log are running, which is this server's limit"
            )
        self._running += 1
        self._metrics.subscribers.inc()
        try:
            start = await self._start(wanted)
            with self._tail.follow(start.head) as tail:
                subscription = _Subscription(
                    self._queries, self._threads, tail, self._metrics, start, wanted, self._page_bytes
                )
                try:
                    while True:
                        yield await subscription.next_answer()
                finally:
                    subscription.close()
        finally:
            self._running -= 1
            self._metrics.subscribers.dec()

    async def _start(self, wanted: Wanted) -> _Start:
        read = self._threads.read
        if wanted.token is not None:
            head = await read(self._queries.read_head)
            await self._check(wanted.token, head)
            return _Start(head, wanted.token.covered + 1, wanted.token.next_position, wanted.token.not_before)
        if wanted.from_time is not None:
            # The head is read after the position: so this is at most one past it.
            position = await read(partial(self._queries.position_at, wanted.from_time))
            return _Start(await read(self._queries.read_head), position, position, wanted.from_time)
        head = await read(self._queries.read_head)
        position = head.position + 1 if wanted.from_end else wanted.from_position or 1
        return _Start(head, min(position, head.position + 1), position, 0)

    async def _check(self, token: ResumeToken, head: LogHead) -> None:
        """Invariant 6: what the holder of the token has seen must be a part of this history."""
        shared = head.position
        if token.epoch != head.epoch:
            epochs = await self._threads.read(self._queries.read_epochs)
            shared = shared_positions(epochs).get(token.epoch, -1)
        if token.covered > shared:
            raise HistoryChanged(token.epoch, head.epoch)


class _Subscription:
    """One subscriber, as it goes along the log."""

    def __init__(
        self,
        queries: LogQueries,
        threads: ReaderThreads,
        tail: Tail,
        metrics: SubscriptionMetrics,
        start: _Start,
        wanted: Wanted,
        page_bytes: int,
    ) -> None:
        self._queries = queries
        self._threads = threads
        self._tail = tail
        self._metrics = metrics
        self._chosen = wanted.chosen
        self._max_events = wanted.max_events
        self._page_bytes = page_bytes
        self._next = start.next_position
        self._skip_before = start.skip_before
        self._not_before = start.not_before
        self._head = start.head.position
        self._clock = asyncio.get_running_loop().time
        self._told_position = start.next_position - 1
        self._told_caught_up = False
        self._told_at = self._clock()
        self._is_behind = False

    async def next_answer(self) -> bytes:
        """Wait for the next answer that the contract wants, and make it.

        Raises: see `Subscriptions.subscribe`.
        """
        while not self._is_due():
            frames = await self._advance()
            if frames:
                return self._answer(frames)
        return self._answer([])

    def close(self) -> None:
        """It has ended."""
        self._note_behind(False)

    @property
    def _is_caught_up(self) -> bool:
        return self._next > max(self._head, self._tail.head)

    def _is_due(self) -> bool:
        """Whether the subscriber has to be told how far it is, though there is no event for it."""
        if self._is_caught_up and not self._told_caught_up:
            return True
        return self._next - 1 > self._told_position and self._clock() >= self._told_at + _PROGRESS_SECONDS

    def _answer(self, frames: list[Frame]) -> bytes:
        self._told_position, self._told_caught_up, self._told_at = self._next - 1, self._is_caught_up, self._clock()
        self._metrics.events.inc(len(frames))
        token = ResumeToken(self._tail.epoch, self._told_position, max(self._next, self._skip_before), self._not_before)
        return answer_of(frames, token, self._told_caught_up)

    async def _advance(self) -> list[Frame]:
        """Look at some of the log, or wait for more of it; returns what was chosen."""
        tail = self._tail
        if tail.error is not None:
            raise tail.error.with_traceback(None)  # it is raised for every subscriber
        # What is not wanted anyway need not be looked at.
        self._next = max(self._next, min(self._skip_before, tail.end))
        self._note_behind(self._next < tail.first)
        if self._next < tail.first:
            return await self._read_page()
        if self._next < tail.end:
            return self._take(tail.slice(self._next, _LOOKED_AT))
        await self._wait(tail.changed)
        return []

    async def _wait(self, changed: asyncio.Event) -> None:
        """Wait for more, but no longer than until the subscriber has to be told how far it is."""
        if self._next - 1 == self._told_position:
            await changed.wait()
            return
        try:
            async with asyncio.timeout_at(self._told_at + _PROGRESS_SECONDS):
                await changed.wait()
        except TimeoutError:
            return

    async def _read_page(self) -> list[Frame]:
        page = await self._threads.read_patiently(
            partial(
                _read_page,
                self._queries,
                self._next,
                self._max_events,
                self._page_bytes,
                self._chosen,
                self._not_before,
            )
        )
        if page.head.epoch != self._tail.epoch or page.head.position < self._next - 1:
            raise HistoryChanged(self._tail.epoch, page.head.epoch)
        self._metrics.pages.inc()
        self._head = page.head.position
        self._next = page.next_position
        return page.frames

    def _take(self, frames: Iterable[Frame]) -> list[Frame]:
        """Those that are wanted, until an answer is full."""
        found: list[Frame] = []
        size = 0
        for frame in frames:
            if frame.record_time >= self._not_before and self._chosen.chooses(frame):
                size += len(frame.data)
                if found and size > self._page_bytes:
                    break
                found.append(frame)
            self._next = frame.position + 1
            if len(found) == self._max_events:
                break
        return found

    def _note_behind(self, is_behind: bool) -> None:
        if is_behind is not self._is_behind:
            self._is_behind = is_behind
            self._metrics.behind.inc(1 if is_behind else -1)


class _FramedPage(NamedTuple):
    head: LogHead
    frames: list[Frame]
    next_position: int


def _read_page(
    queries: LogQueries, position: int, limit: int, max_bytes: int, chosen: LogFilter, not_before: int
) -> _FramedPage:
    """A page for one subscriber, on a thread that reads."""
    head, events, next_position = queries.read_page(position, limit, max_bytes, chosen)
    frames = [frame_of(event) for event in events if event.record_time >= not_before]
    return _FramedPage(head, frames, next_position)
