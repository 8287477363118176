"""`orderstream stream`: the stream, and what hangs on it, made anew from the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.command import command
from cli.commands.db import ReadDbUrl, WriteDbUrl
from cli.console import OutputFormat
from cli.options import DataDir, NatsUrl, Output, StreamName, SubjectPrefix, Yes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.recovery.finding import Finding

app = typer.Typer(help="Look after the stream that mirrors the log.", no_args_is_help=True)


@app.callback()
def stream_group() -> None:
    """Look after the stream that mirrors the log."""


@command(
    app,
    "reset",
    "orderstream stream reset --dry-run",
    "orderstream stream reset --data /var/lib/orderstream --yes",
    "orderstream stream reset --write-db-url postgresql://orderstream@db/orderstream --nats-url nats://broker",
)
def reset(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    nats_url: NatsUrl = "",
    stream: StreamName = "ORDERSTREAM",
    subject_prefix: SubjectPrefix = "orderstream",
    replicas: Annotated[
        int,
        typer.Option(min=1, max=5, envvar="ORDERSTREAM_STREAM_REPLICAS", help="Copies of each message: 1, 3 or 5."),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what differs; exit status 1 if anything does.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also if nothing differs, or if the stream is of another log, which loses it."),
    ] = False,
    yes: Yes = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show where stream and read models are not of the log's history, and make them anew from the log.

    The log is verified first, and is not changed, with one exception: if it was set back without a word (a file copied
    over it), it begins a new epoch, for which the command server must be stopped on SQLite. Then the stream is deleted,
    made and filled again, and all read models are emptied; the projector fills them. It works beside running servers:
    they notice within seconds. Answers are incomplete until the read models have caught up, which `orderstream verify`
    tells.
    """
    import asyncio

    from cli.recovery.procedure import ResetOptions, reset_stream
    from cli.recovery.settings import recovery_settings

    urls, names = (write_db_url, read_db_url, nats_url), (stream, subject_prefix)
    with recovery_settings(data, urls, names, replicas) as settings:
        outcome = asyncio.run(reset_stream(settings, ResetOptions(dry_run, force, yes), _show))
    rows = [finding.as_json() for finding in outcome.findings]
    if output is not OutputFormat.TEXT:
        console.print_one(output, {"findings": rows, "reset": outcome.done, "head": outcome.head_line}, lambda: "")
    if outcome.done:
        console.note("next: `orderstream verify` tells when all of it agrees; keep the head elsewhere:")
        if output is OutputFormat.TEXT:
            typer.echo(outcome.head_line)
    raise typer.Exit(outcome.exit_code)


def _show(findings: list[Finding]) -> None:
    """On stderr, before anything is asked or done."""
    console.stderr().print(_table(findings))


def _table(findings: list[Finding]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what", "is", ""):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = "red" if finding.differs else "green"
        table.add_row(finding.subject, f"[{style}]{finding.standing.value}[/{style}]", finding.text)
    return table
