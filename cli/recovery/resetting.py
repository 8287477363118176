"""Makes a new stream from the log, and has the read models rebuilt from it. ADR 17.

The stream goes first. Between the two steps, projections find a stream of another history and halt; the other way
round, they could begin to fill the emptied read models from a branch that the log has lost. Each step can be repeated.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import nats.errors
import sqlalchemy as sa
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from sqlalchemy.exc import DBAPIError

from cli import console
from cli.auditing.checks import Check, first_position
from cli.auditing.log_audit import LogAudit
from cli.auditing.log_source import LogSource
from cli.exit_codes import ExitCode
from cli.failures import CheckFailed, CliError, InUse, Unavailable
from cli.progress import ProgressDisplay, progress
from cli.targets import sqlite_file
from cqrs.database.engine import backend_of, open_engine, shown
from cqrs.projection.reset import reset_projections
from cqrs.records import EventRecord, chain_hash
from cqrs.relay.publish import MAX_BATCH, BatchRejected, publish_batch
from cqrs.relay.stream import StreamSettings, Tail, ensure_stream, read_tail
from cqrs.subjects import heartbeat_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from readmodel.schema import PROJECTIONS

_LISTEN_SECONDS = 2.5
"""Relays tell where their log is every second. In this time each of them has also seen which epoch its log has."""

_PART_EVENTS = 2000
_BATCH_BYTES = 8 * 1024 * 1024
_ACKNOWLEDGE_SECONDS = 5.0
_MOST_FAILURES = 20
"""In a row, without an event published. A relay that publishes the same range at the same time wins some of them."""

_PAUSE_SECONDS = 0.25
_BUSY_SECONDS = 60.0
"""How long the emptying may wait for a projector that is writing."""


def audit_log(source: LogSource) -> None:
    """Make sure that the log is right in itself: what is about to be deleted may be the only other copy.

    Raises:
        CheckFailed: it is not.
    """
    with progress("verifying the log", "events") as display:
        audit = LogAudit(source)
        display.expect(audit.head.position)
        while rows := audit.next_part(audit.head.position, _PART_EVENTS):
            display.advance(len(rows))
        audit.finish()
    wrong: list[Check] = [check for check in audit.checks() if not check.holds]
    if wrong:
        first = first_position(wrong) or wrong[0]
        raise CheckFailed(
            f"the log itself is not right: {first.problem or first.unchecked}. Nothing was changed, for the stream may "
            "be the only other copy of its events",
            hint="`orderstream log verify` tells more; then restore a backup: `orderstream backup restore --help`",
        )


async def listen(client: Client, prefix: str, epochs: set[str]) -> None:
    """Make sure that no command server of another log publishes beside ours.

    Raises:
        InUse: one does.
    """
    heard: set[str] = set()

    async def on_heartbeat(message: Msg) -> None:
        heard.add(LogHeartbeat.FromString(message.data).epoch)

    subscription = await client.subscribe(heartbeat_subject(prefix), cb=on_heartbeat)
    await asyncio.sleep(_LISTEN_SECONDS)
    await subscription.unsubscribe()
    foreign = sorted(heard - epochs)
    if foreign:
        raise InUse(
            f"a command server of another log (epoch {foreign[0]}) uses the subjects {prefix}.> of this broker right "
            "now: two logs on one stream",
            hint="stop it, or give one of the two logs a --stream and a --subject-prefix of its own",
            exit_code=ExitCode.IN_USE,
        )


async def renew_stream(client: Client, settings: StreamSettings, source: LogSource, *, delete: bool) -> None:
    """Delete the stream if `delete` says so, make it if it is not there, and fill it from the log up to its head.

    Raises:
        CliError: the broker fails again and again.
        HistoryDiverged, UnsupportedBroker: the stream is, meanwhile, none of this log.
    """
    if delete:
        with suppress(NotFoundError):
            await client.jetstream().delete_stream(settings.name)
    head = await asyncio.to_thread(source.head)
    with progress("filling the stream", "events") as display:
        display.expect(head.position)
        filler = _Filler(client, settings, source, head.epoch, display)
        await filler.fill(head.position)


class _Filler:
    """Publishes the log as the relay does. A relay may do the same beside it: the broker lets one win each position."""

    def __init__(
        self, client: Client, settings: StreamSettings, source: LogSource, epoch: str, display: ProgressDisplay
    ) -> None:
        self._client = client
        self._settings = settings
        self._source = source
        self._epoch = epoch
        self._display = display
        self._shown = 0

    async def fill(self, position: int) -> None:
        """Publish until the stream has got to `position`."""
        failures = 0
        tail = await self._tail()
        while tail.position < position:
            try:
                tail = await self._publish_next(tail, position)
                failures = 0
            except (BatchRejected, nats.errors.Error, TimeoutError) as error:
                failures += 1
                if failures > _MOST_FAILURES or self._client.is_closed:
                    raise Unavailable(
                        f"the stream could not be filled beyond position {tail.position:,}: {error}",
                        hint="run the same command again: it goes on from there",
                    ) from error
                await asyncio.sleep(_PAUSE_SECONDS)
                before, tail = tail, await self._tail()
                failures = 0 if tail.position > before.position else failures
            self._show(min(tail.position, position))

    async def _tail(self) -> Tail:
        last = await ensure_stream(self._client, self._settings, self._epoch)
        return await read_tail(self._client.jetstream(), self._settings, last, self._epoch)

    async def _publish_next(self, tail: Tail, position: int) -> Tail:
        rows = await asyncio.to_thread(self._source.read, tail.position + 1, position, MAX_BATCH, _BATCH_BYTES)
        events = [EventRecord(*row) for row in rows]
        if not events:
            raise CheckFailed(
                f"the log has no event at position {tail.position + 1}", hint="run `orderstream log verify`"
            )
        if chain_hash(tail.hash, events[0]) != events[0].hash:
            raise CheckFailed(
                f"position {events[0].position} of the log does not chain from the stream's end",
                hint="run the same command again, with --force",
            )
        return await publish_batch(self._client, self._settings, self._epoch, tail, events, _ACKNOWLEDGE_SECONDS)

    def _show(self, position: int) -> None:
        if position > self._shown:
            self._display.advance(position - self._shown)
            self._shown = position


def empty_read_models(url: str) -> dict[str, int]:
    """Have all read models filled from the log's beginning; returns their new generations, by projection.

    Does nothing where the read DB does not exist or is empty: the projector makes it.

    Raises:
        CliError: the read DB refuses.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return {}
    engine = open_engine(
        url, access="write", busy_timeout_seconds=_BUSY_SECONDS, application_name="orderstream recovery"
    )
    try:
        if not sa.inspect(engine).get_table_names():
            return {}
        with engine.begin() as connection:
            generations = reset_projections(connection, [make() for make in PROJECTIONS])
    except DBAPIError as error:
        raise CliError(
            f"the read DB {shown(url)} could not be emptied: {backend_of(url).explain(error)}",
            hint="run the same command again",
            exit_code=ExitCode.UNAVAILABLE,
        ) from error
    finally:
        engine.dispose()
    console.note(f"read models emptied, to be filled from the log: {', '.join(generations)}")
    return generations
