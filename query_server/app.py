"""Composition root of the query server."""

from __future__ import annotations

from collections.abc import Sequence

from cqrs.errors import StoreUnavailable
from cqrs.serving.background import Background
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.process import run_command_line, settle
from cqrs.serving.stop import StopSignal
from query_server.cache import AnswerCache
from query_server.feed import ChangeFeed
from query_server.freshness import LogHead
from query_server.metrics import QueryMetrics
from query_server.poller import CheckpointPoller
from query_server.queries import customers, orders, sales
from query_server.reader import ReadDatabase
from query_server.settings import QueryServerSettings
from query_server.tracker import ProjectionTracker
from query_server.view import View
from readmodel.sales import CHANGE_KEY
from readmodel.schema import READ_SCHEMA

_DASHBOARD_SHARE = 8
"""One part in so many of the cache's memory is for dashboards; the rest is for orders and customers."""

_READ_DB = "read DB"
_BROKER = "broker"

_log = get_logger(__name__)


def main(args: Sequence[str]) -> int:
    """Run a query server with these command line flags; returns the process's exit code."""
    return run_command_line(serve, QueryServerSettings, args)


async def serve(settings: QueryServerSettings, stop: StopSignal) -> None:
    """Serve queries until `stop`, then drain.

    Raises:
        OperatorError: the settings, or the read DB's schema, are not right.
    """
    readiness = Readiness()
    readiness.require(_READ_DB, "has not been read yet")
    # Without the broker answers are still read, and marked UNKNOWN.
    readiness.require(_BROKER, "is not connected yet", essential=False)

    database = ReadDatabase(
        settings.read_db_url, READ_SCHEMA, threads=settings.read_threads, max_queue=settings.read_queue
    )
    try:
        try:
            database.check()
        except StoreUnavailable as error:
            _log.warning("the read DB cannot be read yet", error=str(error))
        await _serve(settings, stop, database, readiness)
    finally:
        database.close()


async def _serve(settings: QueryServerSettings, stop: StopSignal, database: ReadDatabase, readiness: Readiness) -> None:
    log = LogHead()
    trackers = {name: ProjectionTracker(name) for name in ("orders", "sales")}

    def on_poll(failure: StoreUnavailable | None) -> None:
        if failure is None:
            readiness.ready(_READ_DB)
        else:
            readiness.not_ready(_READ_DB, failure.message)

    poller = CheckpointPoller(
        database, list(trackers.values()), interval_seconds=settings.poll_interval_seconds, on_result=on_poll
    )
    dashboard_bytes = settings.cache_max_bytes // _DASHBOARD_SHARE
    caches = {
        "orders": AnswerCache(
            trackers["orders"],
            max_bytes=settings.cache_max_bytes - dashboard_bytes,
            ttl_seconds=settings.cache_ttl_seconds,
        ),
        "sales": AnswerCache(
            trackers["sales"],
            max_bytes=dashboard_bytes,
            ttl_seconds=settings.cache_ttl_seconds,
            whole_view_keys=(CHANGE_KEY,),
        ),
    }
    views = {
        name: View(tracker, database, poller, log, caches[name], max_waiting=settings.max_waiting_calls)
        for name, tracker in trackers.items()
    }
    feed = ChangeFeed(
        settings.nats_url,
        settings.subject_prefix,
        trackers=trackers,
        tails={name: view.tails for name, view in views.items()},
        log=log,
        poller=poller,
        on_connection=lambda why_not: readiness.not_ready(_BROKER, why_not) if why_not else readiness.ready(_BROKER),
    )
    metrics = ServerMetrics()
    metrics.registry.register(QueryMetrics(views, database))
    server = GrpcServer(settings, metrics=metrics, readiness=readiness)
    order_queries = orders.OrderQueries(views["orders"], max_response_bytes=settings.max_message_bytes)
    server.add_generic(order_queries.handler(), orders.SERVICE)
    server.add_generic(customers.CustomerQueries(views["orders"]).handler(), customers.SERVICE)
    server.add_generic(sales.SalesQueries(views["sales"]).handler(), sales.SERVICE)

    async with Background(stop) as background:
        background.start("checkpoint poller", poller.run())
        background.start("broker connection", feed.connection.run(stop))
        background.start("change feed", feed.run())
        try:
            await server.start()
            settle()
            await stop.wait()
        finally:
            await server.drain()
