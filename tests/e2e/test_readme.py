"""The README's commands give the README's answers, against a real installation."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 60.0
STOP_SECONDS = 40.0
CATCH_UP_SECONDS = 30.0
DEFAULT_PORTS = {"command": "50051", "query": "50052", "projector": "50053"}


class Step(NamedTuple):
    """One `$ command` of a console block, and what follows it there."""

    command: str
    answer: str


def steps_of(text: str) -> list[Step]:
    """The steps of all ```console blocks, in order. A line that ends with a backslash goes on in the next."""
    steps = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:[^\n]*\\\n)*[^\n]*", part)
            assert command is not None
            steps.append(Step(command[0], part[command.end() :].strip()))
    return steps


def pattern_of(answer: str) -> re.Pattern[str]:
    """Matches what the answer shows: `…` stands for anything, and any run of white space for any other."""
    pieces = [r"\s+".join(map(re.escape, piece.split())) for piece in answer.split("…")]
    return re.compile(r"\s*" + r"\s*.*?\s*".join(pieces) + r"\s*", re.DOTALL)


@contextmanager
def installation(data: Path) -> Iterator[dict[str, str]]:
    """`orderstream up` on free ports; gives the gRPC address of each server."""
    log = data.parent / "up.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--data", str(data), "--any-port"],
            cwd=data.parent,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield {name: address_of(name, data / "run" / f"{name}.json", process, log) for name in DEFAULT_PORTS}
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, log.read_text()


def address_of(name: str, ready: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + START_SECONDS
    while not ready.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, f"no {name} server after {START_SECONDS} s:\n{log.read_text()}"
        time.sleep(0.05)
    return str(json.loads(ready.read_text())["grpc"])


def test_a_step_ends_where_the_next_begins() -> None:
    text = "```console\n$ one \\\n    two\nanswer\n  …\n$ three\n```\n"

    assert steps_of(text) == [Step("one \\\n    two", "answer\n  …"), Step("three", "")]


@pytest.mark.parametrize(("answer", "output", "same"), [
    ("a: 1\nb", "a:  1\nb\n", True),
    ("a: …\nb", "a: 1\n2\nb", True),
    ("a: …\nb", "a: 1\nc", False),
    ("", "unexpected", False),
])  # fmt: skip
def test_an_answer_is_compared_up_to_white_space_and_ellipses(answer: str, output: str, same: bool) -> None:
    assert bool(pattern_of(answer).fullmatch(output)) is same


@pytest.mark.timeout(180)
def test_every_command_of_the_readme_answers_as_the_readme_says(tmp_path: Path) -> None:
    steps = steps_of((ROOT / "README.md").read_text())
    assert len(steps) >= 4
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed: see https://github.com/fullstorydev/grpcurl")
    with installation(tmp_path / "data") as addresses:
        for step in steps:
            command = step.command
            for name, port in DEFAULT_PORTS.items():
                command = command.replace(f"localhost:{port}", addresses[name])
            command = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
            wanted, give_up = pattern_of(step.answer), time.monotonic() + CATCH_UP_SECONDS
            while not wanted.fullmatch(output := run(command, tmp_path)):
                # The README says that an answer without a token may be older: a query may be early.
                assert time.monotonic() < give_up, f"$ {step.command}\n{output}"
                time.sleep(0.1)


def run(command: str, folder: Path) -> str:
    """What the command prints, on either stream."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "BUF_CACHE_DIR": str(folder / "buf")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    ).stdout
