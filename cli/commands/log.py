"""`orderstream log`: the event log as an audit trail. Works on the write DB itself, beside a server or without one."""

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
    from cqrs.records import LogHead

app = typer.Typer(help="Look after the event log: prove it, note its head, export it.", no_args_is_help=True)

_PART_EVENTS = 2000

Head = Annotated[
    str, typer.Option(metavar="LINE", help="An earlier head of this log, as `orderstream log head` printed it.")
]
HeadFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file of such lines; each is compared. # begins a comment.")
]


@command(
    app,
    "verify",
    "orderstream log verify --data /var/lib/orderstream",
    "orderstream log verify --head-file /mnt/elsewhere/heads.txt -o json",
)
def verify(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    head: Head = "",
    head_file: HeadFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Prove that no event was changed, removed or put in between.

    Positions and versions have no gaps, each event's hash chains from the one before, record times never run backwards,
    the head is the last event, and the epochs follow each other. With a head that was kept elsewhere also that the log
    goes on from there: only that shows a log that was rewritten as a whole. Changes nothing. Exit status: 0 all holds,
    1 something does not, and the first bad position is named.
    """
    from cli.auditing.checks import exit_code
    from cli.auditing.log_audit import LogAudit
    from cli.auditing.log_source import open_log
    from cli.heads import kept_heads
    from cli.progress import progress
    from cli.rendering.checks import checks_table, tell_outcome
    from cli.targets import existing_write_db

    kept = kept_heads(head, head_file)
    with open_log(existing_write_db(data, write_db_url)) as source, progress("verifying", "events") as display:
        audit = LogAudit(source, kept)
        display.expect(audit.head.position)
        while rows := audit.next_part(audit.head.position, _PART_EVENTS):
            display.advance(len(rows))
        audit.finish()
        checks = audit.checks()
    console.print_many(output, [check.as_json() for check in checks], lambda: checks_table(checks))
    tell_outcome(checks)
    raise typer.Exit(exit_code(checks))


@command(app, "head", "orderstream log head >> /mnt/elsewhere/heads.txt", "orderstream log head -o json")
def show_head(data: DataDir = Path("data"), write_db_url: WriteDbUrl = "", output: Output = OutputFormat.TEXT) -> None:
    """Print where the log ends, as a line to keep elsewhere.

    It has epoch, position, hash and time of the last event, and a checksum against copying errors. `orderstream log
    verify --head` compares a log with it later.
    """
    from cli.auditing.log_source import open_log
    from cli.targets import existing_write_db

    with open_log(existing_write_db(data, write_db_url)) as source:
        head = source.head()
    print_head(output, head)


@command(
    app,
    "export",
    "orderstream log export > events.jsonl",
    "orderstream log export --from 5001 >> events.jsonl",
)
def export(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    first: Annotated[int, typer.Option("--from", min=1, metavar="N", help="First position.")] = 1,
    last: Annotated[
        int | None, typer.Option("--to", min=1, metavar="N", show_default="the head", help="Last position.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="jsonl: a JSON object a line; there is no other yet.")
    ] = "jsonl",
) -> None:
    """Print the events, oldest first, a JSON object a line.

    An event has the log's columns, with `event` as its message, and `data` (base64) where the message is of a type, or
    has fields, that this release does not know. The same events always give the same bytes, so an export that broke off
    goes on with --from, and parts that are put together are the whole.
    """
    import sys

    from cli.auditing.log_source import open_log
    from cli.exporting import export_lines
    from cli.progress import progress
    from cli.targets import existing_write_db
    from cli.wording import counted

    if form != "jsonl":
        raise typer.BadParameter(f"{form!r} is no format: jsonl", param_hint="--format")
    with open_log(existing_write_db(data, write_db_url)) as source, progress("exporting", "events") as display:
        end = source.head().position
        end = end if last is None else min(last, end)
        display.expect(max(0, end - first + 1))
        for lines in export_lines(source, first, end):
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            display.advance(len(lines))
    console.note(f"exported {counted(max(0, end - first + 1), 'event')}; go on with --from {max(first, end + 1)}")


@command(
    app,
    "fork",
    "orderstream log fork --write-db-url postgresql://orderstream@db/orderstream --nats-url nats://broker",
    "orderstream log fork --head-file heads.txt --yes",
)
def fork(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    nats_url: NatsUrl = "",
    stream: StreamName = "ORDERSTREAM",
    subject_prefix: SubjectPrefix = "orderstream",
    head: Head = "",
    head_file: HeadFile = None,
    at: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", show_default="found out", help="The last position that the restore kept."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also if nothing shows that the log was restored.")] = False,
    yes: Yes = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Begin a new epoch, after the database service has set the log back to an older point.

    `orderstream backup restore` does it by itself; a point-in-time recovery of PostgreSQL cannot. Whatever is of the
    branch that was lost (stream, read models, clients' tokens) is then told from what is to come. Refused when nothing
    shows that events were lost: then there is nothing to tell apart. On SQLite the command server must be stopped.
    """
    import asyncio

    from cli.heads import kept_heads
    from cli.recovery.forking import fork_log
    from cli.recovery.settings import recovery_settings

    kept = kept_heads(head, head_file)
    with recovery_settings(data, (write_db_url, read_db_url, nats_url), (stream, subject_prefix)) as settings:
        new_head = asyncio.run(fork_log(settings, kept, at=at, force=force, yes=yes))
    print_head(output, new_head)
    console.note("next: `orderstream stream reset`, with the same options, rebuilds what is made from the log")


def print_head(output: OutputFormat, head: LogHead) -> None:
    """The head on stdout: its line, or with `-o json` that and its parts."""
    from cqrs.head_line import format_head, time_text

    line = format_head(head)
    if output is OutputFormat.TEXT:
        typer.echo(line)
        return
    parts = {
        "epoch": head.epoch,
        "position": head.position,
        "hash": head.hash.hex(),
        "record_time": time_text(head.record_time),
        "line": line,
    }
    console.print_one(output, parts, lambda: line)
