"""`orderstream verify`: the audit."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.commands.db import ReadDbUrl, WriteDbUrl
from cli.console import OutputFormat
from cli.exit_codes import ExitCode
from cli.options import DataDir, Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.auditing.audit import AuditSettings
    from cli.auditing.checks import Check

EXAMPLES = ("orderstream verify", "orderstream verify --data /var/lib/orderstream --wait 120 -o json")


def verify(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    nats_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="ORDERSTREAM_NATS_URL",
            show_default="that of DIR",
            help="The broker.",
        ),
    ] = "",
    stream: Annotated[
        str, typer.Option(metavar="NAME", envvar="ORDERSTREAM_STREAM", help="The stream.")
    ] = "ORDERSTREAM",
    subject_prefix: Annotated[
        str, typer.Option(metavar="TOKEN", envvar="ORDERSTREAM_SUBJECT_PREFIX", help="First token of its subjects.")
    ] = "orderstream",
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
    the check). Changes nothing. Exit status: 0 all holds, 1 something does not.
    """
    import asyncio

    from sqlalchemy.exc import DBAPIError

    from cli.auditing.audit import audit
    from cli.failures import CheckFailed
    from cli.progress import progress
    from cqrs.store.port import StoreError

    with ExitStack() as stack:
        settings = _settings(stack, data, (write_db_url, read_db_url, nats_url), (stream, subject_prefix), wait)
        display = stack.enter_context(progress("verifying", "events"))
        try:
            checks = asyncio.run(audit(settings, display))
        except (StoreError, DBAPIError) as error:
            raise CheckFailed(f"a database cannot be read: {error}") from error
    console.print_many(
        output,
        [{**check._asdict(), "result": "OK" if check.holds else "FAILED"} for check in checks],
        lambda: _table(checks),
    )
    failed = [check for check in checks if not check.holds]
    if failed:
        console.warn(f"{len(failed)} of {len(checks)} checks failed")
        raise typer.Exit(ExitCode.REFUSED)
    console.note(f"all {len(checks)} checks hold")


def _settings(
    stack: ExitStack, data: Path, urls: tuple[str, str, str], names: tuple[str, str], wait: float
) -> AuditSettings:
    """Find out whether the system runs; if not, keep its data directory until the audit is done."""
    from cli.auditing.audit import AuditSettings
    from cli.failures import InUse, NotUsable
    from cli.supervisor.data_directory import DataDirectory
    from cqrs.broker.embedded import EmbeddedBroker
    from cqrs.database.engine import database_file

    directory = DataDirectory(data)
    write_db_url = urls[0] or directory.write_db_url
    read_db_url = urls[1] or directory.read_db_url
    for url in (write_db_url, read_db_url):
        if not database_file(url).exists():
            raise NotUsable(
                f"{database_file(url)} does not exist",
                hint="name the data directory with --data DIR; `orderstream up` makes and fills what is missing",
            )
    nats_url, broker = urls[2], None
    running = True
    if not nats_url:
        if not directory.lock_file.exists():
            raise NotUsable(
                f"{directory.path} is no data directory of `orderstream up`",
                hint="say where the broker is with --nats-url URL",
            )
        try:
            stack.enter_context(directory.lock())
            running = False
            broker = EmbeddedBroker(directory.jetstream)
        except InUse:
            nats_url = directory.read_broker_url()
    return AuditSettings(write_db_url, read_db_url, nats_url, broker, *names, running, wait)


def _table(checks: list[Check]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "what", "rule"):
        table.add_column(column)
    table.add_column("count", justify="right")
    table.add_column("", overflow="fold")
    for check in checks:
        table.add_row(
            Text("OK", style="green") if check.holds else Text("FAILED", style="bold red"),
            check.subject,
            check.rule,
            f"{check.examined:,}",
            Text(check.problem, style="red") if check.problem else Text(check.note, style="dim"),
        )
    return table
