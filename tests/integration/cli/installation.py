"""A running `orderstream up` for tests: in a folder of its own, on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from cli.app import app

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ORDERSTREAM_")},
    "PYTHONPATH": os.pathsep.join(sys.path),
}

ORDERSTREAM = [sys.executable, "-P", "-m", "cli"]

UP_SECONDS = 60.0
"""How long `up` may take until it serves, on a machine that is busy with other tests."""

END_SECONDS = 40.0


class Outcome(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def orderstream(*arguments: str) -> Outcome:
    """Run one command to its end, in this process: a start of Python for each would take most of the tests' time."""
    result = CliRunner().invoke(app, arguments, prog_name="orderstream")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


class Installation:
    """A running system."""

    def __init__(self, data: Path, process: subprocess.Popen[str], notes: Path) -> None:
        self.data = data
        self.process = process
        self.notes = notes
        """Where its stderr goes."""
        self.facts: dict[str, Any] = {}
        """What it printed: addresses, metrics, commands."""

    def run(self, *arguments: str) -> Outcome:
        """Run a command against it."""
        addresses = self.facts["addresses"]
        return orderstream(*arguments, "--command-server", addresses["command"], "--query-server", addresses["query"])

    def wait_for_note(self, text: str, seconds: float = UP_SECONDS) -> None:
        """Wait until it has said this on stderr."""
        wait_until(lambda: text in self.notes.read_text(), seconds, lambda: f"{text!r} in: {self.notes.read_text()}")


@contextmanager
def up(data: Path, *arguments: str) -> Iterator[Installation]:
    """Start a system and wait until it serves; at the end it is stopped if it still runs."""
    notes = data.parent / f"{data.name}.stderr"
    with notes.open("w") as stderr:
        process = subprocess.Popen(
            [*ORDERSTREAM, "up", "--data", str(data), "--any-port", "-o", "jsonl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=ENVIRONMENT,
        )
    installation = Installation(data, process, notes)
    try:
        installation.wait_for_note("serving")
        assert process.stdout is not None
        installation.facts = json.loads(process.stdout.readline())
        yield installation
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(END_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def processes_of(data: Path) -> list[str]:
    """Command lines of the processes that work on a data directory."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(data) in command:
            found.append(command)
    return found


def wait_until(condition: Any, seconds: float, describe: Any) -> None:
    """Poll, at most `seconds` long."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s: {describe()}"
        time.sleep(0.05)
