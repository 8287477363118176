"""The command server's composition root: builds every part and hands it on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from command_server.aggregates import AGGREGATE_TYPES
from command_server.commands import customers, orders
from command_server.event_service import SERVICE as EVENT_SERVICE
from command_server.event_service import EventService
from command_server.housekeeping import prune_results
from command_server.settings import CommandServerSettings
from cqrs import failpoints
from cqrs.broker.connection import BrokerConnection
from cqrs.commit.aggregates import AggregateCache
from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Planner
from cqrs.commit.queue import CommitLimits
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
from orderstream.events.v1.event_service_pb2_grpc import add_EventServiceServicer_to_server


def main(args: Sequence[str]) -> int:
    """Run a command server with these command line flags; returns the process's exit code."""
    return run_command_line(serve, CommandServerSettings, args)


async def serve(settings: CommandServerSettings, stop: StopSignal) -> None:
    """Serve until `stop`, then drain.

    Raises:
        OperatorError: the write DB is held by another process, of another schema, and the like.
    """
    failpoints.arm_from_environment()
    with own_write_db(settings.write_db_url):
        store = SqlEventStore(settings.write_db_url, readers=settings.log_readers + 2)
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
    store_health = _component(readiness, "write DB", "not opened yet")
    relay_health = _component(readiness, "relay", "starting")
    # Commands are accepted while the broker is away (invariant 1): it is shown, and does not count.
    broker_health = _component(readiness, "broker", "not connected yet", essential=False)

    async def broker_connected() -> None:
        broker_health(None)

    async def broker_disconnected() -> None:
        broker_health("disconnected")

    broker = BrokerConnection(
        settings.nats_url,
        "orderstream-command-server",
        on_connect=broker_connected,
        on_disconnect=broker_disconnected,
    )
    relay = Relay(
        store,
        broker,
        StreamSettings(settings.stream, settings.subject_prefix, settings.stream_replicas),
        RelayMetrics(metrics.registry),
        max_event_bytes=settings.max_event_bytes,
        on_halt=relay_health,
        times=RelayTimes(poll=settings.relay_poll_seconds),
    )
    commit_metrics = CommitMetrics(metrics.registry)
    committer = Committer(
        store,
        AggregateCache(AGGREGATE_TYPES, settings.cached_aggregates),
        Planner(settings.max_event_bytes),
        commit_metrics,
        limits=CommitLimits(
            settings.max_batch_commands,
            settings.max_batch_bytes,
            settings.max_queued_commands,
            settings.max_queued_bytes,
        ),
        on_commit=relay.committed,
        on_store_health=store_health,
    )
    server = GrpcServer(settings, metrics=metrics, readiness=readiness)
    server.add_generic(orders.order_command_handlers(committer), orders.SERVICE)
    server.add_generic(customers.customer_command_handlers(committer), customers.SERVICE)
    event_service = EventService(store, readers)
    server.add(lambda grpc_server: add_EventServiceServicer_to_server(event_service, grpc_server), EVENT_SERVICE)

    async with Background(stop) as background:
        committing = background.start("committer", committer.run())
        background.start("broker connection", broker.run(stop))
        relaying = background.start("relay", relay.run(stop))
        beating = background.start("heartbeat", relay.run_heartbeat(stop))
        background.start("pruning", prune_results(committer, store, commit_metrics, settings.request_id_days, stop))
        await committer.on_writer_thread(store.read_head)
        store_health(None)
        relay_health(None)
        await server.start()
        settle()
        await stop.wait()
        await server.drain()
        committer.close()
        for task in (committing, relaying, beating):
            await task
    committer.release()
    relay.release()


def _component(
    readiness: Readiness, name: str, why_not_ready: str, *, essential: bool = True
) -> Callable[[str | None], None]:
    """Register a component; returns what to call with the reason why it is not ready, or None when it is."""
    readiness.require(name, why_not_ready, essential=essential)
    last: str | None = why_not_ready

    def report(why: str | None) -> None:
        nonlocal last
        if why == last:
            return
        last = why
        if why is None:
            readiness.ready(name)
        else:
            readiness.not_ready(name, why)

    return report
