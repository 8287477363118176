"""The command server's composition root: builds every part and hands it on.

The main process owns the log: it decides, commits and relays. Its workers (`worker.py`), forked from it at the start,
speak gRPC with clients.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial

from command_server import worker
from command_server.aggregates import AGGREGATE_TYPES
from command_server.commands.catalog import METHODS
from command_server.health import CommandServerHealth
from command_server.housekeeping import prune_results
from command_server.settings import CommandServerSettings
from cqrs import failpoints
from cqrs.broker.connection import BrokerConnection
from cqrs.commit.aggregates import AggregateCache, AggregateState
from cqrs.commit.appender import Appender
from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.commit.plan import Planner
from cqrs.commit.queue import CommitLimits
from cqrs.database.engine import backend_of
from cqrs.errors import ConfigurationError
from cqrs.ids import new_id
from cqrs.records import EventRecord
from cqrs.relay.lease import LeasedRelay, SoleRelay
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.relay import Relay, RelayTimes
from cqrs.relay.stream import StreamSettings
from cqrs.serving.background import Background
from cqrs.serving.health import Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.presence import Presence
from cqrs.serving.process import EXIT_CONFIG, load_settings_or_tell, run_server, settle
from cqrs.serving.stop import StopSignal
from cqrs.snapshots.loader import AggregateLoader
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots, rules_for
from cqrs.snapshots.writer import SnapshotWriter
from cqrs.store.leases import SqlLeases
from cqrs.store.ownership import own_write_db
from cqrs.store.port import StoreError
from cqrs.store.sql import SqlEventStore
from cqrs.workers.fork import ForkedWorker, fork_workers
from cqrs.workers.pool import WorkerPool
from domain.rejection import Rejection

_log = get_logger(__name__)

_FINISH_SECONDS = 5.0
"""On a stop, how long the relay may take to publish what was committed last."""

_WORKER_START_SECONDS = 30.0

_COMPARE_SECONDS = 3.0
"""At the start, how long to wait for a broker that neither answers nor refuses."""

_MESSAGE_MARGIN_BYTES = 64 * 1024


def main(args: Sequence[str]) -> int:
    """Run a command server with these command line flags; returns the process's exit code."""
    settings = load_settings_or_tell(CommandServerSettings, args)
    if settings is None:
        return EXIT_CONFIG
    sys.stderr.flush()
    workers = fork_workers(settings.workers, partial(worker.run, settings))
    return run_server(partial(serve, workers), settings)


async def serve(workers: Sequence[ForkedWorker], settings: CommandServerSettings, stop: StopSignal) -> None:
    """Serve until `stop`, then drain.

    Raises:
        OperatorError: the write DB is held by another process, of another schema, and the like.
        WorkerFailed: a worker has ended by itself.
    """
    failpoints.arm_from_environment()
    if settings.max_message_bytes < settings.max_event_bytes + _MESSAGE_MARGIN_BYTES:
        raise ConfigurationError(
            f"max_message_bytes ({settings.max_message_bytes}) must exceed max_event_bytes "
            f"({settings.max_event_bytes}) by {_MESSAGE_MARGIN_BYTES}, or events could not be read"
        )
    with own_write_db(settings.write_db_url), closing(open_write_db(settings.write_db_url)) as store:
        await _serve(workers, settings, stop, store)


async def _serve(
    workers: Sequence[ForkedWorker], settings: CommandServerSettings, stop: StopSignal, store: SqlEventStore
) -> None:
    parts = _Parts(workers, settings, store)
    committer, relay, pool = parts.committer, parts.relay, parts.pool
    presence = Presence(settings, parts.metrics.registry, parts.readiness, pool.refresh_metrics)
    try:
        async with Background(stop) as background:
            committing = background.start("committer", committer.run())
            background.start("store watch", committer.watch_store(stop))
            await committer.on_writer_thread(store.read_head)
            parts.health.opened()
            background.start("broker connection", parts.broker.run(stop))
            relaying = background.start("relay", relay.run())
            beating = background.start("heartbeat", relay.run_heartbeat())
            keep_days = settings.request_id_days
            background.start("pruning", prune_results(committer, store, parts.commit_metrics, keep_days, stop))
            background.start("snapshots", parts.snapshot_writer.run(committer.on_writer_thread, stop))
            await presence.open()
            await _compare_histories(relay, parts.broker, stop)
            address = await pool.start(settings.listen, _WORKER_START_SECONDS)
            background.start("workers", pool.watch(stop))
            presence.announce(address)
            settle()
            await stop.wait()
            presence.withdraw()
            parts.readiness.drain()
            await pool.drain(settings.drain_seconds)
            committer.close()
            await committing
            await _finish_publishing(relay, committer, store)
            relay.stop()
            await relaying
            await beating
    finally:
        pool.kill()
        await presence.close()
        parts.release()


class _Parts:
    """What the main process is made of."""

    def __init__(self, workers: Sequence[ForkedWorker], settings: CommandServerSettings, store: SqlEventStore) -> None:
        self.metrics = ServerMetrics()
        self.readiness = Readiness()
        self.health = CommandServerHealth(self.readiness, self._halt)
        self.broker = BrokerConnection(
            settings.nats_url,
            "orderstream-command-server",
            on_connect=self.health.broker_connected,
            on_disconnect=self.health.broker_disconnected,
        )
        self.leases = SqlLeases(settings.write_db_url, holder=new_id())
        self.relay = Relay(
            store,
            self.broker,
            StreamSettings(settings.stream, settings.subject_prefix, settings.stream_replicas),
            RelayMetrics(self.metrics.registry),
            max_event_bytes=settings.max_event_bytes,
            on_state=self.health.relay,
            lease=SoleRelay() if backend_of(settings.write_db_url).is_file else LeasedRelay(self.leases),
            on_elsewhere=self._committed_elsewhere,
            times=RelayTimes(poll=settings.relay_poll_seconds),
        )
        snapshot_metrics = SnapshotMetrics(self.metrics.registry)
        rules = rules_for(AGGREGATE_TYPES, settings.snapshot_every)
        self.snapshot_writer = SnapshotWriter(store, rules, snapshot_metrics, keep=settings.snapshots_kept)
        loader = AggregateLoader(
            Snapshots(AGGREGATE_TYPES, rules, snapshot_metrics), snapshot_metrics, self.snapshot_writer.offer
        )
        self.commit_metrics = CommitMetrics(self.metrics.registry)
        cache = AggregateCache(settings.cached_aggregates)
        planner = Planner(settings.max_event_bytes, Rejection)
        self.committer = Committer(
            Appender(store, cache, loader, planner, self.commit_metrics),
            self.commit_metrics,
            limits=CommitLimits(
                settings.max_batch_commands,
                settings.max_batch_bytes,
                settings.max_queued_commands,
                settings.max_queued_bytes,
            ),
            on_commit=self._committed,
            on_store_health=self.health.store,
        )
        self.pool = WorkerPool(workers, METHODS, self.committer.submit, self.readiness)
        self.metrics.registry.register(self.pool.collector)

    def release(self) -> None:
        """Give back threads and connections, once nothing runs any more."""
        self.committer.release()
        self.snapshot_writer.release()
        self.relay.release()
        self.leases.close()

    def _committed(self, events: Sequence[EventRecord], states: Mapping[str, AggregateState]) -> None:
        self.relay.committed(events)
        self.pool.tell_head(events[-1].position)
        self.snapshot_writer.committed(events, states)

    def _committed_elsewhere(self, position: int) -> None:
        self.pool.tell_head(position)

    def _halt(self, why: str) -> None:
        self.committer.halt(why)


def open_write_db(url: str) -> SqlEventStore:
    """The write DB as the main process uses it.

    Raises:
        SchemaMismatch: it is of another schema.
        ConfigurationError: it cannot be reached, or the URL will not do.
    """
    return SqlEventStore(url, readers=3, application_name="orderstream command server")


async def _finish_publishing(relay: Relay, committer: Committer, store: SqlEventStore) -> None:
    """Wait until what was committed last is on the stream, `_FINISH_SECONDS` at most."""
    try:
        head = await committer.on_writer_thread(store.read_head)
    except StoreError as error:
        _log.warning("not known whether all is published; the next start, or another server, does it", error=str(error))
        return
    await relay.finish(head.position, _FINISH_SECONDS)


async def _compare_histories(relay: Relay, broker: BrokerConnection, stop: StopSignal) -> None:
    """Wait until log and stream were compared: commands on top of a log that lost events would make a second history.

    If the broker is away they are not (invariant 1: a command never waits for the broker).
    """
    deadline = time.monotonic() + _COMPARE_SECONDS
    while not relay.looked.is_set() and not broker.last_error and time.monotonic() < deadline:
        if await stop.wait_for(0.01):
            return
