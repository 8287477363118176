"""The command server's composition root: builds every part and hands it on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from command_server.aggregates import AGGREGATE_TYPES
from command_server.commands import customers, orders
from command_server.event_service import SERVICE as EVENT_SERVICE
from command_server.event_service import EventService
from command_server.health import CommandServerHealth
from command_server.housekeeping import prune_results
from command_server.settings import CommandServerSettings
from cqrs import failpoints
from cqrs.broker.connection import BrokerConnection
from cqrs.commit.aggregates import AggregateCache
from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Planner
from cqrs.commit.queue import CommitLimits
from cqrs.errors import ConfigurationError
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.relay import Relay, RelayTimes
from cqrs.relay.stream import StreamSettings
from cqrs.serving.background import Background
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.process import run_command_line, settle
from cqrs.serving.stop import StopSignal
from cqrs.store.ownership import own_write_db
from cqrs.store.sql import SqlEventStore
from domain.rejection import Rejection
from orderstream.events.v1.event_service_pb2_grpc import add_EventServiceServicer_to_server

_FINISH_SECONDS = 5.0
"""On a stop, how long the relay may take to publish what was committed last."""

_MESSAGE_MARGIN_BYTES = 64 * 1024


def main(args: Sequence[str]) -> int:
    """Run a command server with these command line flags; returns the process's exit code."""
    return run_command_line(serve, CommandServerSettings, args)


async def serve(settings: CommandServerSettings, stop: StopSignal) -> None:
    """Serve until `stop`, then drain.

    Raises:
        OperatorError: the write DB is held by another process, of another schema, and the like.
    """
    failpoints.arm_from_environment()
    if settings.max_message_bytes < settings.max_event_bytes + _MESSAGE_MARGIN_BYTES:
        raise ConfigurationError(
            f"max_message_bytes ({settings.max_message_bytes}) must exceed max_event_bytes "
            f"({settings.max_event_bytes}) by {_MESSAGE_MARGIN_BYTES}, or events could not be read"
        )
    with own_write_db(settings.write_db_url):
        store = SqlEventStore(settings.write_db_url, readers=settings.log_readers + 3)
        readers = ThreadPoolExecutor(settings.log_readers, thread_name_prefix="event-service")
        try:
            await _serve(settings, stop, store, readers)
        finally:
            readers.shutdown(wait=True)
            store.close()


async def _serve(
    settings: CommandServerSettings, stop: StopSignal, store: SqlEventStore, readers: ThreadPoolExecutor
) -> None:
    metrics = ServerMetrics()
    readiness = Readiness()
    health = CommandServerHealth(readiness)
    broker = BrokerConnection(
        settings.nats_url,
        "orderstream-command-server",
        on_connect=health.broker_connected,
        on_disconnect=health.broker_disconnected,
    )
    relay = Relay(
        store,
        broker,
        StreamSettings(settings.stream, settings.subject_prefix, settings.stream_replicas),
        RelayMetrics(metrics.registry),
        max_event_bytes=settings.max_event_bytes,
        on_state=health.relay,
        times=RelayTimes(poll=settings.relay_poll_seconds),
    )
    commit_metrics = CommitMetrics(metrics.registry)
    committer = Committer(
        store,
        AggregateCache(AGGREGATE_TYPES, settings.cached_aggregates),
        Planner(settings.max_event_bytes, Rejection),
        commit_metrics,
        limits=CommitLimits(
            settings.max_batch_commands,
            settings.max_batch_bytes,
            settings.max_queued_commands,
            settings.max_queued_bytes,
        ),
        on_commit=relay.committed,
        on_store_health=health.store,
    )
    server = GrpcServer(settings, metrics=metrics, readiness=readiness)
    server.add_generic(orders.order_command_handlers(committer), orders.SERVICE)
    server.add_generic(customers.customer_command_handlers(committer), customers.SERVICE)
    event_service = EventService(store, readers, settings.max_message_bytes)
    server.add(lambda grpc_server: add_EventServiceServicer_to_server(event_service, grpc_server), EVENT_SERVICE)
    try:
        async with Background(stop) as background:
            committing = background.start("committer", committer.run())
            background.start("store watch", committer.watch_store(stop))
            await committer.on_writer_thread(store.read_head)
            health.opened()
            background.start("broker connection", broker.run(stop))
            relaying = background.start("relay", relay.run())
            beating = background.start("heartbeat", relay.run_heartbeat())
            keep_days = settings.request_id_days
            background.start("pruning", prune_results(committer, store, commit_metrics, keep_days, stop))
            await server.start()
            settle()
            await stop.wait()
            await server.drain()
            committer.close()
            await committing
            await relay.finish(store.read_head().position, _FINISH_SECONDS)
            relay.stop()
            await relaying
            await beating
    finally:
        committer.release()
        relay.release()
