"""`orderstream stream reset`, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import nats.errors

from cli import console
from cli.auditing.log_source import LogSource, open_log
from cli.exit_codes import ExitCode
from cli.failures import CliError, Unavailable
from cli.recovery.comparison import LogView, compare_read_models, compare_stream
from cli.recovery.consent import consent
from cli.recovery.finding import Finding, Standing, those
from cli.recovery.forking import begin_new_epoch, fork_position
from cli.recovery.resetting import audit_log, empty_read_models, listen, renew_stream
from cli.recovery.settings import RecoverySettings, broker_client
from cqrs.head_line import format_head


class ResetOptions(NamedTuple):
    """How far to go."""

    dry_run: bool
    """Only look."""
    force: bool
    """Also if nothing differs, or the stream is of another log."""
    yes: bool
    """Do not ask."""


class ResetOutcome(NamedTuple):
    """What was found and done."""

    findings: list[Finding]
    done: bool
    head_line: str
    """The log's head, as `orderstream log head` prints it."""
    exit_code: ExitCode


async def reset_stream(
    settings: RecoverySettings, options: ResetOptions, show: Callable[[list[Finding]], None]
) -> ResetOutcome:
    """Compare, ask, and make anew what differs from the log.

    Args:
        settings: the installation.
        options: how far to go.
        show: is given the findings before anything is asked or done.

    Raises:
        CliError: it may not be done, or it failed; what was done can be done again.
        OperatorError: a schema, a broker or the lock of the write DB stands in the way.
    """
    with open_log(settings.write_db_url) as source:
        try:
            async with broker_client(settings) as client:
                log = await asyncio.to_thread(LogView, source)
                findings = [
                    await compare_stream(client, settings.stream, log),
                    *await asyncio.to_thread(compare_read_models, settings.read_db_url, log),
                ]
                show(findings)
                differs = any(finding.differs for finding in findings)
                if not differs and not options.force:
                    console.note("nothing differs: log, stream and read models are of one history")
                    return _outcome(findings, source, ExitCode.OK)
                if options.dry_run:
                    console.note("nothing was changed (--dry-run)")
                    return _outcome(findings, source, ExitCode.REFUSED if differs else ExitCode.OK)
                _refuse_foreign(findings, options)
                await asyncio.to_thread(audit_log, source)
                lost = bool(those(findings, Standing.LOST))
                position = fork_position(log, findings)
                consent(_question(settings, position if lost else None), yes=options.yes)
                if settings.broker.running:
                    await listen(client, settings.stream.prefix, {epoch.epoch for epoch in log.epochs})
                if lost:
                    new = await asyncio.to_thread(begin_new_epoch, settings.write_db_url, position)
                    console.note(f"the log was set back: epoch {new.epoch} began at position {position:,}")
                anew = lost or options.force
                stream, *read_models = findings
                await renew_stream(client, settings.stream, source, delete=anew or stream.differs)
                if anew or any(finding.differs for finding in read_models):
                    await asyncio.to_thread(empty_read_models, settings.read_db_url)
                return _outcome(findings, source, ExitCode.OK, done=True)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(
                f"the broker failed: {str(error) or type(error).__name__}", hint="run the same command again"
            ) from error


def _refuse_foreign(findings: list[Finding], options: ResetOptions) -> None:
    foreign = those(findings, Standing.FOREIGN)
    if foreign and not options.force:
        raise CliError(
            f"{foreign[0].subject} {foreign[0].text}; to delete it would be to delete what may be the only copy of "
            "that log's events",
            hint="correct --stream, --subject-prefix or the write DB if they name the wrong one; --force deletes it",
            exit_code=ExitCode.CONFLICT,
        )


def _question(settings: RecoverySettings, fork: int | None) -> str:
    first = "Delete" if fork is None else f"Begin a new epoch of the log at position {fork:,}, delete"
    return f"{first} stream {settings.stream.name}, make it anew from the log, and have all read models rebuilt?"


def _outcome(findings: list[Finding], source: LogSource, exit_code: ExitCode, *, done: bool = False) -> ResetOutcome:
    return ResetOutcome(findings, done, format_head(source.head()), exit_code)
