"""Putting load on a server, from a process apart: single calls, or streams of many commands."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_DEADLINE_SECONDS = 120.0
"""A run that takes longer is a failure: runs are planned for about a second."""


class LoadFailed(Exception):
    """The load client did not come through, or not every call was answered."""


class Target(NamedTuple):
    """A method and its requests, as it goes over the wire."""

    addresses: Sequence[str]
    """host:port of each server that takes it; connections are spread over them."""
    method: str
    """Such as `/package.Service/Method`."""
    requests: Sequence[bytes]
    """The serialised requests, sent in turn, and again from the first when there are no more."""


class LoadResult(NamedTuple):
    """One run."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float
    answer_bytes: int
    """Payload of all answers, without framing. Errors have none: it tells whether the calls succeeded."""


class StreamResult(NamedTuple):
    """One run of streams."""

    commands_per_second: float
    answer_bytes: int
    """Payload of all answers."""


class LoadClient:
    """Starts the load clients. It looks at no answer: the caller verifies by what the servers then hold."""

    def __init__(self, scratch: Path) -> None:
        """Use `scratch`, a folder, for its files."""
        self._file = scratch / "requests.bin"

    async def call(self, target: Target, calls: int, in_flight: int) -> LoadResult:
        """Make `calls` calls, `in_flight` at a time.

        Raises:
            LoadFailed: a call got no answer.
        """
        write_requests(self._file, target.requests)
        arguments = (",".join(target.addresses), target.method, str(self._file), str(calls), str(in_flight))
        output = json.loads(await _output_of("bench.http2_client", *arguments))
        return LoadResult(
            output["calls_per_second"],
            output["p50_ms"],
            output["p99_ms"],
            max(0, output["data_bytes"] - calls * 5),
        )

    async def stream(self, target: Target, messages: int, commands: int, streams: int) -> StreamResult:
        """Send `messages` messages on `streams` bidirectional streams, each message with so many `commands`.

        Raises:
            LoadFailed: a message got no answer.
        """
        write_requests(self._file, target.requests)
        arguments = (",".join(target.addresses), target.method, str(self._file), str(messages), str(streams))
        output = json.loads(await _output_of("bench.stream_client", *arguments))
        return StreamResult(output["messages_per_second"] * commands, output["answer_bytes"])


def write_requests(file: Path, requests: Sequence[bytes]) -> None:
    """Write requests for a load client, each behind its length."""
    file.write_bytes(b"".join(struct.pack(">I", len(request)) + request for request in requests))


def read_requests(file: Path) -> list[bytes]:
    """What `write_requests` wrote."""
    content = file.read_bytes()
    requests, at = [], 0
    while at < len(content):
        behind = at + 4 + int.from_bytes(content[at : at + 4], "big")
        requests.append(content[at + 4 : behind])
        at = behind
    return requests


async def _output_of(module: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise LoadFailed(f"{module} has not ended within {_DEADLINE_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadFailed(f"{module} ended with status {process.returncode}: {output.decode(errors='replace')}")
    return output.decode()
