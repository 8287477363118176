"""DescribeLog: the head as it is, and figures that may be some seconds old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from command_server.events.store_access import ReaderThreads
from cqrs.records import to_timestamp
from cqrs.store.epochs import LogEpoch
from cqrs.store.queries import LogFigures, LogQueries
from orderstream.events.v1 import event_service_pb2 as wire

_FIGURES_SECONDS = 5.0
"""How old figures may be: projectors ask often, and only for the head."""


class LogDescription:
    """Answers DescribeLog."""

    def __init__(self, queries: LogQueries, threads: ReaderThreads) -> None:
        """Ask `queries`, on `threads`."""
        self._queries = queries
        self._threads = threads
        self._figures = LogFigures(0, 0, 0)
        self._epochs: Sequence[LogEpoch] = ()
        self._read_at = -_FIGURES_SECONDS
        self._reading = asyncio.Lock()

    async def describe(self) -> wire.DescribeLogResponse:
        """See the contract.

        Raises:
            StoreUnavailable: the write DB failed.
        """
        head = await self._threads.read(self._queries.read_head)
        async with self._reading:  # of those who ask at the same time, one reads
            is_old = time.monotonic() - self._read_at > _FIGURES_SECONDS
            if is_old or not self._epochs or self._epochs[-1].epoch != head.epoch:
                self._figures = await self._threads.read(self._queries.read_figures)
                self._epochs = await self._threads.read(self._queries.read_epochs)
                self._read_at = time.monotonic()
        return wire.DescribeLogResponse(
            position=head.position,
            hash=head.hash,
            epoch=head.epoch,
            record_time=to_timestamp(head.record_time) if head.position else None,
            database_bytes=self._figures.database_bytes,
            snapshots=self._figures.snapshots,
            command_results=self._figures.command_results,
            epochs=[
                wire.LogEpoch(
                    epoch=epoch.epoch,
                    fork_position=epoch.fork_position,
                    start_time=to_timestamp(epoch.start_time),
                )
                for epoch in self._epochs
            ],
        )
