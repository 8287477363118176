"""Puts a backup in the write DB's place. ADR 17.

The restored log begins a new epoch, always. Whether events were lost cannot be known for sure: what was replaced may be
unreadable, and what came after the backup may have been answered, published and shown all the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cli import console
from cli.auditing.log_source import open_log
from cli.backup.files import copy_file, sync
from cli.exit_codes import ExitCode
from cli.failures import CliError
from cli.progress import progress
from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.errors import OperatorError
from cqrs.records import LogHead
from cqrs.store.epochs import LogEpoch, begin_epoch, read_epochs
from cqrs.store.schema import WRITE_SCHEMA, log_epochs

_SIDE_FILES = ("-wal", "-shm")
_MAGIC = b"SQLite format 3\0"


class Present(NamedTuple):
    """The write DB that is to be replaced."""

    head: LogHead | None
    """None: there is none, or it cannot be read."""
    epochs: Sequence[LogEpoch]
    problem: str
    """Why it cannot be read; empty: it can, or there is none."""


def look_at_present(write_db: Path) -> Present:
    """What is in the write DB now, as far as it can be read."""
    try:
        with write_db.open("rb") as content:
            if content.read(len(_MAGIC)) != _MAGIC:
                # SQLite would delete the write-ahead log beside it, and with it what may still be saved.
                return Present(None, [], "it is no SQLite database any more")
    except FileNotFoundError:
        return Present(None, [], "")
    except OSError as error:
        return Present(None, [], error.strerror or str(error))
    try:
        with open_log(f"sqlite:///{write_db}", any_revision=True) as source:
            return Present(source.head(), source.epochs(), "")
    except (CliError, OperatorError) as error:
        return Present(None, [], str(error))


def replace_write_db(backup: Path, write_db: Path, present: Present) -> tuple[LogEpoch, Path | None]:
    """Put the backup in place; returns the new epoch, and where what it replaced is kept.

    To be called while the write DB is owned. What is copied, migrated and forked is a file beside it, which takes its
    name in the end: until then nothing has changed.

    Raises:
        CliError: it cannot be written.
        SchemaMismatch: a newer release made the backup.
    """
    part = write_db.with_name(f".{write_db.name}.{os.getpid()}.restoring")
    try:
        with ExitStack() as stack:
            stack.callback(_remove, part)
            with progress("copying", "bytes") as display:
                display.expect(backup.stat().st_size)
                copy_file(backup, part, display.advance)
            epoch = _prepare(part, present.epochs)
            sync(part)
            replaced = _set_aside(write_db)
            part.replace(write_db)
            sync(write_db.parent)
    except OSError as error:
        raise CliError(f"{write_db} cannot be replaced: {error.strerror}", exit_code=ExitCode.NO_INPUT) from error
    return epoch, replaced


def _prepare(file: Path, earlier: Sequence[LogEpoch]) -> LogEpoch:
    """Bring the copy to this release's schema, and begin a new epoch in it."""
    engine = open_engine(f"sqlite:///{file}", access="write", durable=True)
    try:
        upgrade_schema(engine, WRITE_SCHEMA)
        with engine.begin() as connection:
            _carry_over(connection, earlier)
            return begin_epoch(connection)
    except DBAPIError as error:
        raise CliError(f"the copy of the backup cannot be prepared: {error.orig}", exit_code=ExitCode.DATA) from error
    finally:
        engine.dispose()


def _carry_over(connection: sa.Connection, earlier: Sequence[LogEpoch]) -> None:
    """Keep the epochs that the replaced log has had since the backup: heads and tokens of them may still turn up."""
    known = read_epochs(connection)
    names = {epoch.epoch for epoch in known}
    if not earlier or not known or earlier[0].epoch != known[0].epoch:
        return  # nothing can be read of what is replaced, or it is another log
    last = connection.execute(sa.text("SELECT position FROM log_head")).scalar_one()
    for epoch in earlier:
        if epoch.epoch not in names:
            kept = epoch._replace(fork_position=min(epoch.fork_position, last))
            connection.execute(log_epochs.insert().values(**kept._asdict()))


def _set_aside(write_db: Path) -> Path | None:
    """Keep the present write DB under another name, with what SQLite has beside it."""
    if not write_db.exists():
        return None
    aside = write_db.with_name(f"{write_db.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    # First: a write-ahead log that stayed behind would be taken for the restored database's. (There is none, if what is
    # replaced is in order: the last connection that closed it has put all of it into the database.)
    for suffix in _SIDE_FILES:
        with suppress(FileNotFoundError):
            write_db.with_name(write_db.name + suffix).rename(aside.with_name(aside.name + suffix))
    try:
        os.link(write_db, aside)  # both names, so that there is always a write DB
    except OSError:
        write_db.rename(aside)
    return aside


def _remove(part: Path) -> None:
    for suffix in ("", *_SIDE_FILES):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


def tell_loss(present: Present, backup: LogHead, write_db: Path) -> None:
    """On stderr: what the restore will replace."""
    if present.problem:
        console.warn(f"the present write DB cannot be read, and is kept aside: {present.problem}")
    elif present.head is None:
        console.note(f"{write_db} does not exist yet")
    else:
        more = present.head.position - backup.position
        console.note(
            f"the present log ends at position {present.head.position:,}, the backup at {backup.position:,}"
            + (f": about {more:,} events will be missing" if more > 0 else "")
        )
