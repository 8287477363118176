"""`orderstream backup`: the write DB, copied and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import console
from cli.command import command
from cli.commands.db import WriteDbUrl
from cli.commands.log import Head, HeadFile
from cli.console import OutputFormat
from cli.options import DataDir, Output, Yes

app = typer.Typer(help="Back up the event log on SQLite. Everything else is made again from it.", no_args_is_help=True)

_BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup; its manifest lies beside it.")]


@command(
    app,
    "create",
    "orderstream backup create /mnt/backups",
    "orderstream backup create /mnt/backups/before-upgrade.db --data /var/lib/orderstream",
)
def create(
    to: Annotated[Path, typer.Argument(metavar="TO", help="A file that does not exist yet, or a folder.")],
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Copy the write DB, beside a running server or without one, and verify the copy.

    The copy is of one moment. It gets its name when its whole log has been verified and is on the disk; a manifest
    beside it has the log's head, size, SHA-256, schema revision and time. Nothing is overwritten. Keep both files, and
    the head, on another machine. For PostgreSQL see docs/operations.md.
    """
    from cli.backup.creating import create_backup
    from cli.backup.files import write_db_file
    from cli.supervisor.data_directory import DataDirectory
    from cqrs.head_line import format_head

    write_db = write_db_file(write_db_url or DataDirectory(data).write_db_url, "create")
    file, manifest, checks = create_backup(write_db, to)
    line = format_head(manifest.head)
    facts = {"file": str(file), **manifest.as_json()}
    _print(output, facts, f"{file}\n{line}")
    console.note(f"{manifest.size:,} bytes, {manifest.head.position:,} events; all {len(checks)} checks hold")


@command(
    app,
    "verify",
    "orderstream backup verify /mnt/backups/orderstream-20261124T050452Z.db",
    "orderstream backup verify /mnt/backups/before-upgrade.db --head-file heads.txt -o json",
)
def verify(file: _BackupFile, head: Head = "", head_file: HeadFile = None, output: Output = OutputFormat.TEXT) -> None:
    """Check a backup: the file against its manifest, then its whole log, as `orderstream log verify` does.

    Changes nothing. Exit status: 0 all holds, 1 something does not.
    """
    from cli.auditing.checks import exit_code
    from cli.backup.checking import verify_backup
    from cli.backup.manifest import read_manifest
    from cli.heads import kept_heads
    from cli.rendering.checks import checks_table, tell_outcome

    checks = verify_backup(file, read_manifest(file), kept_heads(head, head_file))
    console.print_many(output, [check.as_json() for check in checks], lambda: checks_table(checks))
    tell_outcome(checks)
    raise typer.Exit(exit_code(checks))


@command(
    app,
    "restore",
    "orderstream backup restore /mnt/backups/orderstream-20261124T050452Z.db --data /var/lib/orderstream",
    "orderstream backup restore before-upgrade.db --yes && orderstream stream reset --yes",
)
def restore(
    file: _BackupFile,
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    yes: Yes = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Put a backup in the place of the write DB. The command server must be stopped.

    The backup is verified first. What it replaces is kept beside it under another name. The restored log begins a new
    epoch: whatever is of the events that are lost with the restore (stream, read models, clients' tokens) is told from
    what is to come, and refused. `orderstream stream reset` then makes stream and read models anew.
    """
    from cli.backup.checking import refuse_failed, verify_backup
    from cli.backup.files import write_db_file
    from cli.backup.manifest import read_manifest
    from cli.backup.restoring import look_at_present, replace_write_db, tell_loss
    from cli.recovery.consent import consent
    from cli.supervisor.data_directory import DataDirectory
    from cqrs.head_line import format_head
    from cqrs.store.ownership import own_write_db

    url = write_db_url or DataDirectory(data).write_db_url
    write_db = write_db_file(url, "restore")
    manifest = read_manifest(file)
    refuse_failed(verify_backup(file, manifest), "nothing was changed, for the backup does not verify")
    with own_write_db(url):
        present = look_at_present(write_db)
        tell_loss(present, manifest.head, write_db)
        consent(f"Replace {write_db} with {file}?", yes=yes)
        epoch, replaced = replace_write_db(file, write_db, present)
    line = format_head(manifest.head._replace(epoch=epoch.epoch))
    facts: dict[str, Any] = {
        "write_db": str(write_db),
        "replaced": str(replaced) if replaced else None,
        "epoch": epoch.epoch,
        "fork_position": epoch.fork_position,
        "head": line,
    }
    _print(output, facts, line)
    console.note(f"{write_db} is restored to position {manifest.head.position:,}, and of a new epoch")
    if replaced is not None:
        console.note(f"what it replaced is kept as {replaced}")
    console.note(
        "next: `orderstream stream reset` makes stream and read models anew, with the servers stopped or running"
    )


def _print(output: OutputFormat, facts: dict[str, Any], lines: str) -> None:
    """On stdout; as text without line breaks of our own, since lines are what is kept."""
    if output is OutputFormat.TEXT:
        typer.echo(lines)
    else:
        console.print_one(output, facts, lambda: "")
