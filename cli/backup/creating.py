"""Makes a backup of the write DB, beside a running command server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cli.auditing.checks import Check
from cli.backup.checking import audit_copy, refuse_failed
from cli.backup.files import digest_of, exists_already, new_file, read_revision
from cli.backup.manifest import Manifest, manifest_file, manifest_text
from cli.exit_codes import ExitCode
from cli.failures import CliError, NotUsable
from cli.progress import ProgressDisplay, progress
from cqrs.database.sqlite import sqlite_module

_PAGES_PER_STEP = 1024
_BUSY_SECONDS = 10.0


def create_backup(write_db: Path, wanted: Path) -> tuple[Path, Manifest, Sequence[Check]]:
    """Copy the write DB; returns the backup's file, its manifest and what was checked.

    Args:
        write_db: the file to copy.
        wanted: a file that does not exist yet, or a folder.

    The copy is of one moment. Nothing has the name of the backup before it has been verified and is on the disk.

    Raises:
        CliError: something has that name, or cannot be written.
        CheckFailed: the copy does not verify: the write DB itself is not right.
    """
    if not write_db.is_file():
        raise NotUsable(f"{write_db} does not exist", hint="name the data directory with --data DIR")
    target = wanted / f"orderstream-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db" if wanted.is_dir() else wanted
    for file in (target, manifest_file(target)):
        if file.exists():
            raise exists_already(file)
    with new_file(target) as part:
        now = time.time_ns() // 1000
        with progress("copying", "pages") as display:
            _copy(write_db, part, display)
        head, checks = audit_copy(part)
        refuse_failed(checks, "the write DB is not right, so no backup was made of it")
        manifest = Manifest(head, part.stat().st_size, digest_of(part), read_revision(part), now)
    with new_file(manifest_file(target)) as part:
        part.write_text(manifest_text(manifest), "utf-8")
    return target, manifest, checks


def _copy(source: Path, target: Path, display: ProgressDisplay) -> None:
    module = sqlite_module()
    done = 0

    def on_step(_status: int, remaining: int, total: int) -> None:
        nonlocal done
        if not done:
            display.expect(total)
        display.advance(total - remaining - done)
        done = total - remaining

    try:
        with (
            closing(module.connect(source, timeout=_BUSY_SECONDS, isolation_level=None)) as reading,
            closing(module.connect(target, isolation_level=None)) as writing,
        ):
            # Within a transaction the copy is of the moment at which that began. Without it, each commit of the command
            # server would make it begin again, and under load it would never end.
            reading.execute("BEGIN")
            reading.execute("SELECT position FROM log_head").fetchone()
            reading.backup(writing, pages=_PAGES_PER_STEP, progress=on_step)
            reading.execute("ROLLBACK")
    except module.Error as error:
        raise CliError(
            f"{source} could not be copied: {error}",
            hint="is it a write DB, and is there room for the copy?",
            exit_code=ExitCode.NO_INPUT,
        ) from error
