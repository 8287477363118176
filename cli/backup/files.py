"""Files of backups: databases that are looked at and never written, and new files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from cli.exit_codes import ExitCode
from cli.failures import CheckFailed, CliError
from cqrs.database.engine import backend_of, database_file, shown
from cqrs.database.sqlite import sqlite_module

_BLOCK_BYTES = 1024 * 1024
_REVISION = "SELECT version_num FROM alembic_version"


def write_db_file(url: str, doing: str) -> Path:
    """The file of the write DB.

    Raises:
        CliError: it is not on SQLite.
    """
    if not backend_of(url).is_file:
        raise CliError(
            f"the write DB {shown(url)} is not a file: `orderstream backup {doing}` is for SQLite only",
            hint="on PostgreSQL, use pg_basebackup with archived WAL, then `orderstream log verify --head` and "
            "`orderstream log fork`: docs/operations.md has the steps",
            exit_code=ExitCode.CONFIG,
        )
    return database_file(url).absolute()


def still(file: Path) -> str:
    """The URL under which a database can be read that nobody writes: not a byte of its file, or beside it, changes."""
    return f"sqlite:///{file.absolute().as_uri()}?mode=ro&immutable=1&uri=true"


def connect_still(file: Path) -> Any:
    """A connection of the SQLite library for the same."""
    uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite_module().connect(uri, uri=True, isolation_level=None)


def read_revision(file: Path) -> str:
    """Revision of the schema of a database that nobody writes.

    Raises:
        CheckFailed: it has none.
    """
    try:
        with closing(connect_still(file)) as connection:
            return str(connection.execute(_REVISION).fetchone()[0])
    except (sqlite_module().Error, TypeError) as error:
        raise CheckFailed(f"{file} is no write DB: {error}") from error


def integrity_problem(file: Path) -> str:
    """The first thing that SQLite finds wrong with a database that nobody writes; empty if nothing."""
    try:
        with closing(connect_still(file)) as connection:
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite_module().Error as error:
        return str(error)
    return "" if found == "ok" else found


def digest_of(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file to write instead of `target`; if the context ends well, it is on the disk and takes that name.

    Raises:
        CliError: there is a `target` already, or it cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            yield part
            sync(part)
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # fails if the name is taken
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        sync(target.parent)
    except FileExistsError as error:
        raise exists_already(target) from error
    except OSError as error:
        raise CliError(f"{target} cannot be written: {error.strerror}", exit_code=ExitCode.NO_INPUT) from error


def exists_already(target: Path) -> CliError:
    """A file is in the way."""
    return CliError(f"{target} exists already, and nothing is overwritten", hint="give another name, or a folder")


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_file(source: Path, target: Path, advance: Callable[[int], None]) -> None:
    """Copy bytes; `advance` is called with how many more are done."""
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(_BLOCK_BYTES):
            writing.write(block)
            advance(len(block))
