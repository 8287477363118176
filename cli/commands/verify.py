"""`orderstream verify`: the audit."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.commands.db import ReadDbUrl, WriteDbUrl
from cli.console import OutputFormat
from cli.options import DataDir, NatsUrl, Output, StreamName, SubjectPrefix

if TYPE_CHECKING:
    from cli.auditing.audit import AuditSettings

EXAMPLES = ("orderstream verify", "orderstream verify --data /var/lib/orderstream --wait 120 -o json")


def verify(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    nats_url: NatsUrl = "",
    stream: StreamName = "ORDERSTREAM",
    subject_prefix: SubjectPrefix = "orderstream",
    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long to wait until stream and views have reached the log's head."
        ),
    ] = 30.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check that log, stream and views agree.

    Positions and versions have no gaps, the hash chain is intact, the stream equals the log to the byte, and the views
    equal a fresh fold of the log. Works beside a running system, and on a stopped one (then it starts the broker for
    the check). Changes nothing. Exit status: 0 all holds, 1 something does not, 69 something could not be checked.
    `orderstream log verify` checks the log alone, and faster.
    """
    import asyncio

    from sqlalchemy.exc import DBAPIError

    from cli.auditing.audit import audit
    from cli.auditing.checks import exit_code
    from cli.failures import CheckFailed
    from cli.progress import progress
    from cli.rendering.checks import checks_table, tell_outcome

    with ExitStack() as stack:
        settings = _settings(stack, data, (write_db_url, read_db_url, nats_url), (stream, subject_prefix), wait)
        display = stack.enter_context(progress("verifying", "events"))
        try:
            checks = asyncio.run(audit(settings, display))
        except DBAPIError as error:
            raise CheckFailed(f"a database cannot be read: {error}") from error
    console.print_many(output, [check.as_json() for check in checks], lambda: checks_table(checks))
    tell_outcome(checks)
    raise typer.Exit(exit_code(checks))


def _settings(
    stack: ExitStack, data: Path, urls: tuple[str, str, str], names: tuple[str, str], wait: float
) -> AuditSettings:
    """Find out whether the system runs; if not, keep its data directory until the audit is done."""
    from cli.auditing.audit import AuditSettings
    from cli.targets import existing_read_db, existing_write_db, find_broker

    write_db_url = existing_write_db(data, urls[0])
    read_db_url = existing_read_db(data, urls[1])
    target = find_broker(stack, data, urls[2])
    return AuditSettings(write_db_url, read_db_url, target.url, target.broker, *names, target.running, wait)
