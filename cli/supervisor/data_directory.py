"""The data directory of `up`: what lies where in it, and the lock that keeps it for one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import console
from cli.failures import InUse, NotUsable

_LEFTOVER_SECONDS = 30.0
"""How long to wait for servers that outlived their supervisor: they drain, and hold the lock until they end."""

_LEFTOVER_POLL_SECONDS = 0.1


class DataDirectory:
    """Where one installation keeps everything. Nothing is made until `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.write_db = self.path / "write.db"
        """The event log. The only file that cannot be made again from the others."""
        self.read_db = self.path / "read.db"
        self.jetstream = self.path / "jetstream"
        """The embedded broker's store."""
        self.run = self.path / "run"
        """Which parts run, with their process ids and addresses: a JSON file each."""
        self.lock_file = self.path / "up.lock"
        self._broker_file = self.run / "broker.json"

    @property
    def write_db_url(self) -> str:
        """SQLAlchemy URL of the event log."""
        return f"sqlite:///{self.write_db}"

    @property
    def read_db_url(self) -> str:
        """SQLAlchemy URL of the read models."""
        return f"sqlite:///{self.read_db}"

    def create(self) -> None:
        """Make the directory and those within it.

        Raises:
            NotUsable: they cannot be made or written.
        """
        try:
            for directory in (self.path, self.jetstream, self.run):
                directory.mkdir(parents=True, exist_ok=True)
            self.lock_file.touch()
        except OSError as error:
            raise NotUsable(f"{self.path} cannot be used as data directory: {error.strerror}") from error

    def write_broker_url(self, url: str, process_id: int) -> None:
        """Note where the embedded broker listens."""
        part = self._broker_file.with_suffix(".part")
        part.write_text(json.dumps({"pid": process_id, "url": url}) + "\n")
        part.replace(self._broker_file)

    def read_broker_url(self) -> str:
        """Where the embedded broker listens, while the directory is in use.

        Raises:
            NotUsable: it is not running.
        """
        try:
            return str(json.loads(self._broker_file.read_text())["url"])
        except FileNotFoundError as error:
            raise NotUsable(f"the broker of {self.path} is not up yet", hint="try again in a moment") from error

    def remove_broker_url(self) -> None:
        """The broker listens no more."""
        self._broker_file.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keep the directory for this process; yields the lock's file descriptor.

        A child that inherits the descriptor holds the lock as well, until it ends. So a directory whose supervisor was
        killed is free again only when its servers are gone.

        Raises:
            InUse: another run has it.
        """
        with self.lock_file.open("r+") as file:
            self._acquire(file.fileno())
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield file.fileno()
            finally:
                file.seek(0)
                file.truncate()

    def holder(self) -> int | None:
        """Process id of the supervisor that has the directory, or None. Of use while it is locked."""
        try:
            text = self.lock_file.read_text().strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdigit() else None

    def _acquire(self, descriptor: int) -> None:
        give_up = time.monotonic() + _LEFTOVER_SECONDS
        told = False
        while not _try_lock(descriptor):
            holder = self.holder()
            if holder is not None and _is_alive(holder):
                raise InUse(
                    f"the data directory {self.path} is in use by process {holder}, an `orderstream up` (or `verify`)",
                    hint=f"stop it (kill {holder}), or give this one a directory of its own with --data DIR",
                )
            if time.monotonic() > give_up:
                raise InUse(
                    f"the data directory {self.path} is in use by servers whose supervisor is gone",
                    hint=f"their process ids are in {self.run}",
                )
            if not told:
                console.note("waiting for the servers of an earlier run, whose supervisor is gone, to end")
                told = True
            time.sleep(_LEFTOVER_POLL_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
