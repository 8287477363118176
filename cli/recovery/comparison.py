"""Compares the log with what is made from it: the stream, the read models, and heads that were kept. Invariant 6.

An event's hash stands for all events before it. So one equal hash at one position shows that two histories are the same
up to there, and the point where they part is found by halving.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import sqlalchemy as sa
from nats.aio.client import Client
from nats.js.api import StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy.exc import DBAPIError

from cli.auditing.log_source import LogSource
from cli.failures import CheckFailed
from cli.recovery.finding import Finding, Standing
from cli.targets import sqlite_file
from cqrs.database.engine import backend_of, open_engine, shown
from cqrs.database.migrations import check_schema
from cqrs.head_line import time_text
from cqrs.projection.checkpoint import Checkpoint, read_checkpoint
from cqrs.records import LogHead
from cqrs.relay.stream import StreamSettings, stream_epoch, stream_faults
from cqrs.store.epochs import LogEpoch
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION
from readmodel.schema import PROJECTIONS, READ_SCHEMA


class LogView:
    """The log, as what is made from it is compared with it."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self.head = source.head()
        self.epochs: list[LogEpoch] = source.epochs()

    def hash_at(self, position: int) -> bytes | None:
        """Hash of the event at a position; None if there is none."""
        return self._source.hash_at(position)

    def judge(self, subject: str, epoch: str, position: int, shared: int | None, *, exact: bool) -> Finding:
        """What it means that something of this epoch is at `position`, and is the log up to `shared`."""
        known = {each.epoch: each for each in self.epochs}
        where = f"is at position {position:,} of epoch {epoch or '(none)'}"
        if epoch not in known:
            text = f"{where}, which this log never had: it is of another log"
            return Finding(subject, Standing.FOREIGN, text, position, shared, exact, epoch)
        if epoch != self.head.epoch:
            text = f"{where}, which this log has left; its epoch is {self.head.epoch}"
            return Finding(subject, Standing.LEFT, text, position, shared, exact, epoch)
        if shared == position:
            return Finding(
                subject, Standing.SAME, f"is the log up to position {position:,}", position, shared, epoch=epoch
            )
        if position > self.head.position:
            text = f"is at position {position:,}, the log ends at {self.head.position:,}"
        else:
            text = f"has another event at position {position:,} than the log"
        if exact:
            text += f"; up to {shared:,} they are the same"
        return Finding(subject, Standing.LOST, f"{text}: the log was set back", position, shared, exact, epoch)


async def compare_stream(client: Client, settings: StreamSettings, log: LogView) -> Finding:
    """How the stream stands to the log.

    Raises:
        nats.errors.Error: the broker failed.
    """
    subject = f"stream {settings.name}"
    jetstream = client.jetstream()
    try:
        info = await jetstream.stream_info(settings.name)
    except NotFoundError:
        return Finding(subject, Standing.MISSING, "does not exist")
    last, epoch = info.state.last_seq, stream_epoch(info)

    async def is_same(position: int) -> bool:
        return await _header_hash(jetstream, settings.name, position) == (log.hash_at(position) or b"").hex()

    shared = await last_true(is_same, min(last, log.head.position))
    finding = log.judge(subject, epoch, last, shared, exact=True)
    faults = [*stream_faults(settings, info.config), *_holes(info)]
    tail = await _headers(jetstream, settings.name, last)
    if last and tail.get(HEADER_EPOCH) != epoch:
        faults.append(f"its last message is of epoch {tail.get(HEADER_EPOCH, '(none)')}")
    if finding.standing is Standing.SAME and faults:
        return finding._replace(standing=Standing.UNUSABLE, text="; ".join(faults))
    return finding


def compare_read_models(url: str, log: LogView) -> list[Finding]:
    """How each projection stands to the log.

    Raises:
        SchemaMismatch: the read DB is of another schema.
        CheckFailed: it cannot be read.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return [Finding("read DB", Standing.MISSING, f"{file} does not exist: the projector makes it")]
    engine = open_engine(url, access="read", application_name="orderstream recovery")
    try:
        if not sa.inspect(engine).get_table_names():
            return [Finding("read DB", Standing.MISSING, f"{shown(url)} is empty: the projector makes it")]
        check_schema(engine, READ_SCHEMA)
        with engine.connect() as connection:
            found = {each.name: read_checkpoint(connection, each.name) for each in (make() for make in PROJECTIONS)}
    except DBAPIError as error:
        raise CheckFailed(f"the read DB {shown(url)} cannot be read: {backend_of(url).explain(error)}") from error
    finally:
        engine.dispose()
    return [_compare_checkpoint(f"projection {name}", checkpoint, log) for name, checkpoint in found.items()]


def compare_kept(kept: Sequence[LogHead], log: LogView) -> list[Finding]:
    """How heads that were kept elsewhere stand to the log."""
    found = []
    for head in kept:
        same = log.hash_at(head.position) == head.hash or not head.position
        shared = head.position if same else None
        subject = f"kept head of {time_text(head.record_time)}"
        found.append(log.judge(subject, head.epoch, head.position, shared, exact=False))
    return found


async def last_true(holds: Callable[[int], Awaitable[bool]], last: int) -> int:
    """The last of the numbers 1 to `last` for which `holds`, which holds for all below it; 0 if for none."""
    if not last or await holds(last):
        return last
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if await holds(middle):
            low = middle
        else:
            high = middle
    return low


def _compare_checkpoint(subject: str, checkpoint: Checkpoint | None, log: LogView) -> Finding:
    if checkpoint is None or not checkpoint.position:
        return Finding(subject, Standing.MISSING, "has not begun: the projector fills it from the log")
    shared = checkpoint.position if log.hash_at(checkpoint.position) == checkpoint.hash else None
    return log.judge(subject, checkpoint.epoch, checkpoint.position, shared, exact=False)


async def _header_hash(jetstream: JetStreamContext, stream: str, position: int) -> str:
    """The hash that a message's header has; empty if it has none, or one of another position."""
    headers = await _headers(jetstream, stream, position)
    return headers.get(HEADER_HASH, "") if headers.get(HEADER_POSITION) == str(position) else ""


async def _headers(jetstream: JetStreamContext, stream: str, position: int) -> Mapping[str, str]:
    """The headers of a message; none if there is no such message."""
    if not position:
        return {}
    try:
        return (await jetstream.get_msg(stream, seq=position)).headers or {}
    except NotFoundError:
        return {}


def _holes(info: StreamInfo) -> list[str]:
    state = info.state
    if state.last_seq and state.messages != state.last_seq:
        return [f"it lacks {state.last_seq - state.messages:,} of its {state.last_seq:,} messages"]
    return []
