"""Reads the checkpoints of all projections now and then: what keeps the server right when no notification comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from cqrs.errors import StoreUnavailable
from cqrs.serving.logging import get_logger
from query_server.reader import ReadDatabase
from query_server.tracker import ProjectionTracker

_SECONDS_WHILE_WAITING = 0.025
"""Between two polls while calls wait for a token. A poll takes about 0.3 ms."""

_log = get_logger(__name__)


class CheckpointPoller:
    """The one poller of a process, shared by all who wait."""

    def __init__(
        self,
        database: ReadDatabase,
        trackers: Sequence[ProjectionTracker],
        *,
        interval_seconds: float,
        on_result: Callable[[StoreUnavailable | None], None],
    ) -> None:
        """Poll nothing yet.

        Args:
            database: what to read.
            trackers: whom to tell.
            interval_seconds: between two polls when nobody waits.
            on_result: called after each poll with what went wrong, if anything did.
        """
        self.failure: StoreUnavailable | None = None
        """Why the last poll failed; None: it did not."""
        self._database = database
        self._trackers = {tracker.projection: tracker for tracker in trackers}
        self._interval = interval_seconds
        self._on_result = on_result
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """Poll soon: somebody waits, or something happened that only the read DB can explain."""
        self._wanted.set()

    async def poll(self) -> None:
        """Read the checkpoints, after this call. All who ask while a poll is under way share the next one.

        Raises:
            StoreUnavailable: the read DB cannot be read.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._poll_after(self._running), name="checkpoint-poll")
            self._next.add_done_callback(_look_at)
        await asyncio.shield(self._next)

    async def _poll_after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        await self._poll()

    async def _poll(self) -> None:
        marks = {name: tracker.begin_read() for name, tracker in self._trackers.items()}
        try:
            snapshots = await self._database.snapshots(list(self._trackers))
        except StoreUnavailable as error:
            self._failed(error)
            raise
        if self.failure is not None:
            _log.info("the read DB can be read again")
        self.failure = None
        for name, tracker in self._trackers.items():
            tracker.end_read(marks[name], snapshots[name])
        self._on_result(None)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            with suppress(StoreUnavailable):  # told to on_result and logged; it may pass
                await self.poll()
            # Pokes come in bursts: one poll answers all that came before it.
            await asyncio.sleep(_SECONDS_WHILE_WAITING)
            if not any(tracker.waiting for tracker in self._trackers.values()):
                await self._rest()
            self._wanted.clear()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._interval):
                await self._wanted.wait()
        except TimeoutError:
            return

    def _failed(self, error: StoreUnavailable) -> None:
        self.failure = error  # the reader has logged why
        self._on_result(error)


def _look_at(poll: asyncio.Task[None]) -> None:
    """A poll's failure is told to `on_result`; nobody may be left who awaits it."""
    if not poll.cancelled():
        poll.exception()
