"""The audit as a whole: one pass through the log, which feeds all checks. Reads only; works beside a running system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import nats.errors
import nats.js.errors
import sqlalchemy as sa
from nats.aio.client import Client

from cli.auditing.checks import Check
from cli.auditing.log_audit import LogAudit
from cli.auditing.log_source import LogSource
from cli.auditing.stream_audit import StreamAudit
from cli.auditing.view_audit import ViewAudit, wait_for_projections
from cli.progress import ProgressDisplay
from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import open_engine
from cqrs.database.migrations import check_schema
from cqrs.records import EventRecord, LogHead
from cqrs.store.schema import WRITE_SCHEMA
from readmodel.schema import PROJECTIONS, READ_SCHEMA

_CHUNK_EVENTS = 1_000


class AuditSettings(NamedTuple):
    """What to audit."""

    write_db_url: str
    read_db_url: str
    nats_url: str
    """Where the broker runs. Empty: nothing runs, and `broker` is started for the audit."""
    broker: EmbeddedBroker | None
    stream: str
    subject_prefix: str
    running: bool
    """The system runs: stream and views must reach the log's head. Else they may lack the log's end."""
    wait_seconds: float
    """How long to wait until they have."""


async def audit(settings: AuditSettings, display: ProgressDisplay) -> list[Check]:
    """Run all checks.

    Raises:
        NoHead: the write DB does not say where its log ends.
        SchemaMismatch: a database is not of this release's schema.
        UnsupportedBroker: the broker is too old.
    """
    write_engine = open_engine(settings.write_db_url, access="read", connections=1)
    engine = open_engine(settings.read_db_url, access="read", connections=1)
    try:
        await asyncio.to_thread(check_schema, write_engine, WRITE_SCHEMA)
        await asyncio.to_thread(check_schema, engine, READ_SCHEMA)
        log = await asyncio.to_thread(LogAudit, LogSource(write_engine))
        head = log.head
        wait = settings.wait_seconds if settings.running else 0.0
        await wait_for_projections(engine, [projection.name for projection in PROJECTIONS], head.position, wait)
        views = await asyncio.to_thread(_read_views, engine, head)
        end = max(head.position, *(view.position for view in views))
        display.expect(end)
        async with _stream(settings, head, wait) as stream:
            while rows := await asyncio.to_thread(log.next_part, end, _CHUNK_EVENTS):
                records = [EventRecord._make(row) for row in rows]
                for view in views:
                    view.feed(records)
                if isinstance(stream, StreamAudit):
                    await _guarded(stream, stream.compare(records))
                display.advance(len(records))
            now = await asyncio.to_thread(log.finish)
            if isinstance(stream, StreamAudit):
                stream_check = stream.check(head.position, now.position, running=settings.running)
            else:
                stream_check = stream
        return [
            *await asyncio.to_thread(log.checks),
            stream_check,
            *(check for view in views for check in view.checks(running=settings.running)),
        ]
    finally:
        write_engine.dispose()
        engine.dispose()


def _read_views(engine: sa.Engine, head: LogHead) -> list[ViewAudit]:
    # One transaction: all checkpoints and rows are of one moment.
    with engine.connect() as connection, connection.begin():
        return [ViewAudit(connection, projection(), head) for projection in PROJECTIONS]


async def _guarded(stream: StreamAudit, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` on the stream; a broker that fails meanwhile is what was found out about the stream."""
    try:
        await work
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        stream.failed(error)


@asynccontextmanager
async def _stream(settings: AuditSettings, head: LogHead, wait: float) -> AsyncIterator[StreamAudit | Check]:
    """The stream, ready to be read; or the check that cannot be done because there is no broker."""
    if settings.broker is not None:
        await settings.broker.start()
    try:
        url = settings.broker.url if settings.broker is not None else settings.nats_url
        client, problem = await _connect(url)
        if client is None:
            yield Check("stream", "equals the log, to the byte", 0, unchecked=problem)
            return
        try:
            stream = StreamAudit(client, settings.stream, settings.subject_prefix, head.epoch)
            await _guarded(stream, stream.open(head.position, wait))
            yield stream
            await _guarded(stream, stream.close())
        finally:
            await client.close()
    finally:
        if settings.broker is not None:
            await settings.broker.stop()


async def _connect(url: str) -> tuple[Client | None, str]:
    """A connection to the broker, or why there is none."""
    try:
        return await connect_broker(url, "orderstream-verify"), ""
    except ConnectionError as error:
        return None, str(error)
