"""The cache of serialised answers of one projection, and the single flight that fills it.

DESIGN, invariant 10: a cache never hides what a client has already seen. An entry keeps the position of the snapshot
that it was read in. The tracker says what changed since; an answer that was read before a change and arrives after it
is given to those who asked for it then, and not kept.

Belongs to the event loop: cachetools' caches are not thread safe, and nothing here awaits while it changes anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from cachetools import TTLCache

from cqrs.tokens import ConsistencyToken
from query_server.reader import Snapshot
from query_server.tracker import Mark, ProjectionTracker

_ENTRY_BYTES = 700
"""What an entry costs beside its key and its answer: the objects around it, measured with tracemalloc."""

Load = Callable[[], Awaitable[tuple[Snapshot, bytes | None]]]
"""Reads an answer, without its freshness, from the read DB; None: there is no such thing."""


@dataclass(slots=True)
class Answer:
    """A serialised response but for its freshness and consistency token, and the snapshot that it was read in."""

    body: bytes | None
    """None: there is no such thing. Never cached."""
    snapshot: Snapshot
    size: int = 0
    """About how many bytes it takes in the cache."""
    tail: bytes = b""
    """Memo of this answer's own freshness (see freshness.py), and which state of things it is of."""
    tail_serial: int = -1


@dataclass
class CacheCounters:
    """What the cache has done since the process started."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    """Misses that waited for a read that was already under way."""
    invalidations: int = 0
    """Entries dropped because their row changed."""
    evictions: int = 0
    """Entries dropped for want of space."""
    expirations: int = 0
    """Entries dropped because of their age."""
    refused: int = 0
    """Answers not kept because a change passed by while they were read."""
    too_large: int = 0
    """Answers not kept because they are larger than the whole cache."""


@dataclass(eq=False)
class _Flight:
    """A read that is under way for everybody who wants this key."""

    mark: Mark
    invalidated: int = 0
    """The newest position at which the key is known to have changed since the read began."""
    future: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class AnswerCache:
    """Answers by key, bounded in bytes and in age."""

    def __init__(
        self,
        tracker: ProjectionTracker,
        *,
        max_bytes: int,
        ttl_seconds: float,
        whole_view_keys: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Attaches itself to the tracker.

        Args:
            tracker: says what changed.
            max_bytes: the most memory to use, about; 0 keeps nothing.
            ttl_seconds: how long an answer is kept at most; 0 keeps nothing.
            whole_view_keys: notification keys that stand for everything in this cache.
            clock: seconds, monotonic.
        """
        self.counters = CacheCounters()
        self._tracker = tracker
        self._enabled = max_bytes > 0 and ttl_seconds > 0
        self._max_bytes = max_bytes
        self._whole_view_keys = frozenset(whole_view_keys)
        self._entries = _Entries(max_bytes, ttl_seconds, clock, self.counters)
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        tracker.attach(self)

    @property
    def bytes_used(self) -> int:
        """About how much memory the entries take."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

    def get(self, key: str, token: ConsistencyToken | None = None) -> Answer | None:
        """The answer that is kept for `key`, if it shows what the holder of `token` has seen.

        It does if it was read at or after the token, or if contiguous notifications have reached the token since.
        """
        try:
            answer = self._entries[key]
        except KeyError:
            self.counters.misses += 1
            return None
        if token is not None and not self._shows(answer, token):
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        return answer

    def _shows(self, answer: Answer, token: ConsistencyToken) -> bool:
        snapshot = answer.snapshot
        return token.epoch == snapshot.epoch and token.position <= max(snapshot.position, self._tracker.reached)

    async def fetch(self, key: str, load: Load) -> Answer:
        """Read the answer for `key`, together with all others that want it now, and keep it if that is safe.

        Its snapshot may be older than the caller needs when the read was under way before: then fetch again.

        Raises:
            ServiceError: whatever `load` raises, for everybody who waits.
        """
        flight = self._flights.get(key)
        if flight is None or flight.invalidated or flight.mark.flushes != self._tracker.begin_read().flushes:
            # Nobody joins a read that may not show a change which is known already.
            flight = self._flights[key] = _Flight(self._tracker.begin_read())
            task = asyncio.create_task(self._fly(key, flight, load), name=f"fetch {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.counters.joined += 1
        return await asyncio.shield(flight.future)

    def invalidate(self, keys: Collection[str], position: int) -> None:
        """Drop the answers for `keys` that were read before `position`, and keep none such that is being read."""
        for key in keys:
            if key in self._whole_view_keys:
                self.counters.invalidations += len(self._entries)
                self._entries.clear()
                for flight in self._flights.values():
                    flight.invalidated = position
                continue
            answer = self._entries.get(key)
            if answer is not None and answer.snapshot.position < position:
                del self._entries[key]
                self.counters.invalidations += 1
            flown = self._flights.get(key)
            if flown is not None:
                flown.invalidated = position

    def flush(self) -> None:
        """Forget everything. What is being read at the time is judged by `ProjectionTracker.may_store`."""
        self._entries.clear()

    async def _fly(self, key: str, flight: _Flight, load: Load) -> None:
        future = flight.future
        try:
            snapshot, body = await load()
            self._tracker.end_read(flight.mark, snapshot)
            answer = Answer(body, snapshot)
            self._keep(key, flight, answer)
            future.set_result(answer)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked get it
            future.set_exception(error)
            future.exception()  # everybody who asked may have gone by now: not an error of its own
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _keep(self, key: str, flight: _Flight, answer: Answer) -> None:
        if not self._enabled or answer.body is None:
            return
        # A flight that another has taken the place of is not told of changes any more: it cannot know what it missed.
        current = self._flights.get(key) is flight
        if not current or not self._tracker.may_store(flight.mark, answer.snapshot, flight.invalidated):
            self.counters.refused += 1
            return
        answer.size = _ENTRY_BYTES + len(key) + len(answer.body)
        if answer.size > self._max_bytes:
            self.counters.too_large += 1
            return
        kept = self._entries.get(key)
        if kept is not None and kept.snapshot.position > answer.snapshot.position:
            return
        self._entries[key] = answer


class _Entries(TTLCache[str, Answer]):
    """cachetools' TTL cache (least recently used first out), counting what it drops."""

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float], counters: CacheCounters) -> None:
        super().__init__(max_bytes, ttl_seconds, clock, lambda answer: answer.size)
        self._counters = counters

    def popitem(self) -> tuple[str, Answer]:
        """Drop the least recently used entry to make room."""
        item = super().popitem()
        self._counters.evictions += 1
        return item

    def expire(self, time: float | None = None) -> list[tuple[str, Answer]]:
        """Drop what is too old."""
        expired = super().expire(time)
        self._counters.expirations += len(expired)
        return expired
