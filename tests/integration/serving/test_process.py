"""A server as a process: signals, its parent's end, exit codes, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, sys
from cqrs.errors import LogInUse
from cqrs.serving.background import Background
from cqrs.serving.logging import get_logger
from cqrs.serving.process import run_server, settle
from cqrs.serving.settings import ServerSettings
from cqrs.serving.settings_loader import load_settings

class Settings(ServerSettings):
    server = "example"

async def main(settings, stop):
    print("started", flush=True)
    settle()
    how = sys.argv[1]
    if how == "operator": raise LogInUse("the write DB is held by process 1")
    if how == "group": raise ExceptionGroup("tasks", [LogInUse("held")])
    if how == "defect": raise RuntimeError("a wheel came off")
    if how == "background":
        async with Background(stop) as background:
            background.start("relay", asyncio.wait_for(asyncio.Event().wait(), 0.05))
            await stop.wait()
    await stop.wait()
    if how == "stuck": await asyncio.Event().wait()
    print("stopped: " + stop.reason, flush=True)

sys.exit(run_server(main, load_settings(Settings, sys.argv[2:])))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def run(how: str, *args: str, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORDERSTREAM_")}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how, *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_in_good_order(start: Start, number: signal.Signals) -> None:
    process = start("serve")
    process.send_signal(number)
    code, stdout, stderr = end(process)
    assert (code, stdout) == (0, f"stopped: received {number.name}\n")
    assert "Traceback" not in stderr


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process = start("stuck")
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 128 + signal.SIGTERM


def test_with_stop_with_parent_the_end_of_stdin_stops_it(start: Start) -> None:
    process = start("serve", "--stop-with-parent", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("ignored\n")
    process.stdin.close()
    process.stdin = None
    assert end(process)[:2] == (0, "stopped: the parent process has gone\n")


@pytest.mark.parametrize("how", ["operator", "group"])
def test_what_an_operator_must_mend_is_one_line_and_code_78(start: Start, how: str) -> None:
    code, _, stderr = end(start(how, "--log-format", "json"))
    assert code == 78
    errors = [line for line in map(json.loads, stderr.splitlines()) if line["level"] == "error"]
    assert len(errors) == 1
    assert errors[0]["kind"] == "LogInUse"
    assert errors[0]["process"] == "example"
    assert "held" in errors[0]["error"]


def test_a_defect_is_logged_with_its_traceback_and_code_70(start: Start) -> None:
    code, stdout, stderr = end(start("defect"))
    assert (code, stdout) == (70, "")
    assert "Traceback" in stderr
    assert "a wheel came off" in stderr


def test_a_background_task_that_dies_ends_the_process_with_code_70(start: Start) -> None:
    code, _, stderr = end(start("background"))
    assert code == 70
    assert "TimeoutError" in stderr
