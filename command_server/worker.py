"""A worker's composition root: what it serves, and with what."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry

from command_server.aggregates import AGGREGATE_TYPES
from command_server.commands.handlers import command_services
from command_server.events.metrics import SubscriptionMetrics
from command_server.events.service import SERVICE as EVENT_SERVICE
from command_server.events.service import EventService, EventServiceLimits
from command_server.events.store_access import ReaderThreads
from command_server.events.tail import TailLimits
from command_server.settings import CommandServerSettings
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.logging import configure_logging
from cqrs.serving.metrics import ServerMetrics
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots, rules_for
from cqrs.store.sql import SqlEventStore
from cqrs.workers.pace import Pace
from cqrs.workers.worker import WorkerContext, run_worker


def run(settings: CommandServerSettings, number: int, end: socket.socket) -> int:
    """Be worker `number` of the command server with these settings; returns the exit status."""
    configure_logging(settings.log_level, settings.log_format, process=f"{settings.server} worker {number}")

    def make_server(listen: str, metrics: ServerMetrics, readiness: Readiness) -> GrpcServer:
        return GrpcServer(
            settings.model_copy(update={"listen": listen}),
            metrics=metrics,
            readiness=readiness,
            shown_elsewhere=True,
            share_port=settings.workers > 1,
        )

    return run_worker(end, make_server, lambda context: _Services(settings, context), settings.max_queued_bytes)


class _Services:
    """The command services, and EventService with reading connections of its own."""

    def __init__(self, settings: CommandServerSettings, context: WorkerContext) -> None:
        self._settings = settings
        self._context = context
        # All streams together leave half of the committer's queue to calls, which are refused when it is full.
        shares = 2 * settings.workers
        self._pace = Pace(settings.max_queued_commands // shares, settings.max_queued_bytes // shares)
        self._store = SqlEventStore(
            settings.write_db_url,
            readers=settings.log_readers + 1,
            application_name="orderstream command server, EventService",
        )
        self._threads = ThreadPoolExecutor(settings.log_readers, thread_name_prefix="event-service")
        self._tail_thread = ThreadPoolExecutor(1, thread_name_prefix="tail-of-the-log")
        self._events: EventService | None = None

    def add_to(self, server: GrpcServer) -> None:
        """See Services."""
        for service, handlers in command_services(self._context.commands, self._pace, server.draining):
            server.add_generic(handlers, service)
        settings, registry = self._settings, self._context.metrics.registry
        # The metrics of snapshots are the main process's: a name must not be exposed twice.
        rules = rules_for(AGGREGATE_TYPES, settings.snapshot_every)
        self._events = EventService(
            self._store,
            ReaderThreads(self._threads),
            ReaderThreads(self._tail_thread),
            Snapshots(AGGREGATE_TYPES, rules, SnapshotMetrics(CollectorRegistry())),
            SubscriptionMetrics(registry),
            server.draining,
            EventServiceLimits(
                settings.max_message_bytes,
                settings.max_subscribers,
                TailLimits(poll_seconds=settings.subscription_poll_seconds),
            ),
        )
        server.add(self._events.add_to, EVENT_SERVICE)

    def head_moved(self, position: int) -> None:
        """See Services."""
        if self._events is not None:
            self._events.head_moved(position)

    def close(self) -> None:
        """See Services."""
        self._threads.shutdown(wait=True)
        self._tail_thread.shutdown(wait=True)
        self._store.close()
