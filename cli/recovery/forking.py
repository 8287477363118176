"""Begins a new epoch of the log where it was set back. ADR 17."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import nats.errors
from sqlalchemy.exc import DBAPIError

from cli import console
from cli.auditing.log_source import open_log
from cli.exit_codes import ExitCode
from cli.failures import CliError, Unavailable
from cli.recovery.comparison import LogView, compare_kept, compare_read_models, compare_stream
from cli.recovery.consent import consent
from cli.recovery.finding import Finding, Standing, those
from cli.recovery.settings import RecoverySettings, broker_client
from cqrs.database.engine import backend_of, open_engine, shown
from cqrs.records import LogHead
from cqrs.store.epochs import CannotFork, LogEpoch, begin_epoch
from cqrs.store.ownership import own_write_db


async def fork_log(
    settings: RecoverySettings, kept: Sequence[LogHead], *, at: int | None, force: bool, yes: bool
) -> LogHead:
    """Begin a new epoch at the last position that the restore kept; returns the head, which is of that epoch.

    Args:
        settings: the installation.
        kept: heads of the log from before the restore, which show what was lost.
        at: that position; None: found out.
        force: also if nothing shows that events were lost.
        yes: do not ask.

    Raises:
        CliError: nothing shows that the log was set back, the position cannot be right, or it may not be done.
        LogInUse: on SQLite, a command server runs.
    """
    with open_log(settings.write_db_url) as source:
        log = await asyncio.to_thread(LogView, source)
        findings = [
            *await _compare_stream(settings, log),
            *await asyncio.to_thread(compare_read_models, settings.read_db_url, log),
            *await asyncio.to_thread(compare_kept, kept, log),
        ]
    for finding in findings:
        console.note(f"{finding.subject}: {finding.text}")
    if not those(findings, Standing.LOST) and not force:
        raise CliError(
            "nothing shows that the log was set back, so there is nothing to tell apart",
            hint="name a head from before with --head or --head-file; --force begins a new epoch all the same",
            exit_code=ExitCode.CONFLICT,
        )
    position = fork_position(log, findings) if at is None else at
    _refuse_shared_beyond(findings, position)
    consent(f"Begin a new epoch of the log at position {position:,}?", yes=yes)
    new = await asyncio.to_thread(begin_new_epoch, settings.write_db_url, position)
    console.note(
        f"epoch {new.epoch} began at position {position:,}; all tokens of {log.head.epoch} are void from now on"
    )
    with open_log(settings.write_db_url) as source:
        return source.head()


def fork_position(log: LogView, findings: Sequence[Finding]) -> int:
    """The last position that log and lost branch are known to share: the truth if the stream is there, else no later.

    What is shared and not known to be does no harm: it is looked at by hashes.
    """
    exact = [finding for finding in those(findings, Standing.LOST) if finding.exact and finding.shared is not None]
    known = [finding.shared or 0 for finding in findings if finding.epoch == log.head.epoch]
    if exact:
        known = [finding.shared or 0 for finding in exact]
    elif not those(findings, Standing.LOST):
        known = [log.head.position]
    return max([log.epochs[-1].fork_position if log.epochs else 0, *known])


def begin_new_epoch(url: str, position: int) -> LogEpoch:
    """Begin a new epoch at `position`, durably.

    Raises:
        LogInUse: on SQLite, a command server holds the write DB. (It would go on with the old epoch.)
        CliError: the log has no such point, or the database refuses.
    """
    with ExitStack() as stack:
        if backend_of(url).is_file:
            stack.enter_context(own_write_db(url))
        engine = open_engine(url, access="write", durable=True, application_name="orderstream log fork")
        stack.callback(engine.dispose)
        try:
            with engine.begin() as connection:
                return begin_epoch(connection, position)
        except CannotFork as error:
            raise CliError(str(error), exit_code=ExitCode.CONFLICT) from error
        except DBAPIError as error:
            raise CliError(
                f"the write DB {shown(url)} refused: {backend_of(url).explain(error)}",
                hint="on PostgreSQL, run this as the owner of the tables",
                exit_code=ExitCode.CONFIG,
            ) from error


async def _compare_stream(settings: RecoverySettings, log: LogView) -> list[Finding]:
    """The stream's finding; none, and a warning, if the broker is away: other things may show enough."""
    try:
        async with broker_client(settings) as client:
            return [await compare_stream(client, settings.stream, log)]
    except (Unavailable, nats.errors.Error, TimeoutError) as error:
        console.warn(f"the stream could not be looked at: {error}")
        return []


def _refuse_shared_beyond(findings: Sequence[Finding], position: int) -> None:
    for finding in those(findings, Standing.LOST):
        if finding.exact and finding.shared is not None and position > finding.shared:
            raise CliError(
                f"{finding.subject} and the log are the same up to position {finding.shared:,}, so the new epoch "
                f"cannot begin at {position:,}",
                hint="leave --at out",
                exit_code=ExitCode.CONFLICT,
            )
