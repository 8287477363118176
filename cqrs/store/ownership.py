"""On SQLite the write DB has one owner: a lock on a file beside it, held while the process lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cqrs.database.engine import backend_of, database_file
from cqrs.errors import ConfigurationError, LogInUse


@contextmanager
def own_write_db(url: str) -> Iterator[None]:
    """Hold the write DB for this process, if it is a file; a database server has any number of clients.

    Raises:
        LogInUse: another process holds it.
        ConfigurationError: its folder cannot be used.
    """
    if not backend_of(url).is_file:
        yield
        return
    file = database_file(url).resolve()
    lock = file.with_name(file.name + ".lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(f"{lock} cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise LogInUse(
                f"{file} is held by another command server (process {owner or 'unknown'}): on SQLite there is one; "
                "stop it first"
            ) from error
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
