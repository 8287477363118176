"""One server as a child process: started, watched, its log lines passed on, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cli import console

_LONGEST_LOG_LINE = 64 * 1024
"""Bytes of a log line that are kept in memory; what is longer is passed on in pieces."""

_READY_POLL_SECONDS = 0.02

STOP_SECONDS = 15.0
"""How long a server may take to drain and stop before it is killed; its own drain is bounded below that."""


class Addresses(NamedTuple):
    """Where a running server listens, as host:port."""

    grpc: str
    metrics: str


class ServerProcess:
    """One run of one server.

    Args:
        name: "command", "query" or "projector".
        arguments: for the server's settings.
        ready_file: where the server tells its process id and addresses once it serves.
        lock: descriptor of the data directory's lock, which the child holds too.
    """

    def __init__(self, name: str, arguments: Sequence[str], ready_file: Path, lock: int) -> None:
        self.name = name
        self._arguments = arguments
        self._ready_file = ready_file
        self._lock = lock
        self._process: Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def process_id(self) -> int:
        """The child's process id; 0 before `start`."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the child. It stops by itself when this process ends, however it ends: its stdin is then at its end."""
        self._ready_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "cli",
            "serve",
            self.name,
            *self._arguments,
            f"--ready-file={self._ready_file}",
            "--stop-with-parent",
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=PIPE,
            pass_fds=(self._lock,),
            # A session of its own: Ctrl-C at the terminal reaches the supervisor only, which stops all in order.
            start_new_session=True,
            env=_environment(),
            limit=_LONGEST_LOG_LINE,
        )
        self._log = asyncio.create_task(self._pass_log_on(self._process))

    async def ready(self, seconds: float) -> Addresses | None:
        """The addresses, once the server serves; None when it ended before that, or is not ready after `seconds`."""
        process = self._started()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while process.returncode is None:
                    addresses = self._read_ready_file(process.pid)
                    if addresses is not None:
                        return addresses
                    await asyncio.sleep(_READY_POLL_SECONDS)
        return None

    async def wait(self) -> int:
        """The exit status, once the child has ended and its last log line is out. Negative: the signal's number."""
        status = await self._started().wait()
        if self._log is not None:
            await self._log
        return status

    async def stop(self) -> None:
        """Ask the child to drain and stop, and kill it when it takes too long."""
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            console.warn(f"{self.name} server: did not stop within {STOP_SECONDS:g} s, killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the child at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _started(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"the {self.name} server was not started")
        return self._process

    def _read_ready_file(self, process_id: int) -> Addresses | None:
        try:
            ready = json.loads(self._ready_file.read_bytes())
        except FileNotFoundError:
            return None
        # One of an earlier run is not ours.
        return Addresses(ready["grpc"], ready.get("metrics") or "") if ready["pid"] == process_id else None

    async def _pass_log_on(self, process: Process) -> None:
        stream = process.stderr
        if stream is None:
            return
        while True:
            try:
                line = await stream.readuntil()
            except asyncio.IncompleteReadError as end:
                line = end.partial
            except asyncio.LimitOverrunError as long:
                line = await stream.readexactly(long.consumed)
            if not line:
                return
            console.note(f"{self.name} │ {line.decode(errors='replace').rstrip()}")


def _environment() -> dict[str, str]:
    """Ours, with what Python needs to find the same packages whatever the current directory is."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
