"""Load clients: h2load where it is installed, else one in Python, in processes of its own.

Both send one and the same request again and again, at a constant number in flight, and look at no answer: the caller
verifies by what the servers then hold.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import struct
import sys
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple, Protocol

_DEADLINE_SECONDS = 60.0
"""A run that takes longer is a failure: runs are planned for about a second."""


class LoadFailed(Exception):
    """The load client did not come through, or not every call was answered."""


class Target(NamedTuple):
    """One unary call, as it goes over the wire again and again."""

    address: str
    """host:port."""
    method: str
    """Such as `/package.Service/Method`."""
    request: bytes
    """The serialised request."""


class LoadResult(NamedTuple):
    """One run."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float
    answer_bytes: int
    """Payload of all answers, without framing. Errors have none: it tells whether the calls succeeded."""


class LoadClient(Protocol):
    """What can put load on a server."""

    name: str

    async def run(self, target: Target, calls: int, in_flight: int) -> LoadResult:
        """Send `calls` calls, `in_flight` at a time.

        Raises:
            LoadFailed: a call got no answer.
        """
        ...


def find_client(scratch: Path) -> LoadClient:
    """The lightest load client of this machine. `scratch` is a folder for its files."""
    h2load = shutil.which("h2load")
    return H2Load(h2load, scratch) if h2load else PythonClient(scratch)


def _connections(in_flight: int) -> int:
    return min(4, in_flight)


def _percentiles(milliseconds: list[float]) -> tuple[float, float]:
    cuts = quantiles(milliseconds, n=100, method="inclusive")
    return cuts[49], cuts[98]


async def _output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise LoadFailed(f"{command[0]} has not ended within {_DEADLINE_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadFailed(f"{command[0]} ended with status {process.returncode}: {output.decode(errors='replace')}")
    return output.decode()


class H2Load:
    """The load tester of nghttp2. It speaks HTTP/2 and knows no gRPC: it frames nothing and sees no grpc-status."""

    name = "h2load"

    def __init__(self, program: str, scratch: Path) -> None:
        self._program = program
        self._body = scratch / "request.bin"
        self._log = scratch / "calls.tsv"

    async def run(self, target: Target, calls: int, in_flight: int) -> LoadResult:
        """Send `calls` calls, `in_flight` at a time."""
        connections = _connections(in_flight)
        self._body.write_bytes(struct.pack(">BI", 0, len(target.request)) + target.request)
        self._log.unlink(missing_ok=True)
        output = await _output_of(
            self._program,
            f"--requests={calls}",
            f"--clients={connections}",
            f"--max-concurrent-streams={in_flight // connections}",
            f"--data={self._body}",
            "--header=content-type: application/grpc",
            "--header=te: trailers",
            f"--log-file={self._log}",
            f"http://{target.address}{target.method}",
        )
        finished = re.search(r"finished in .*?, ([\d.]+) req/s", output)
        answered = re.search(r"(\d+) succeeded", output)
        data = re.search(r"headers.*, \S+ \((\d+)\) data", output)
        if finished is None or answered is None or data is None or int(answered[1]) != calls:
            raise LoadFailed(f"h2load has not got {calls} answers:\n{output}")
        microseconds = [float(line.rsplit("\t", 1)[1]) for line in self._log.read_text().splitlines()]
        p50, p99 = _percentiles([value / 1000 for value in microseconds])
        return LoadResult(float(finished[1]), p50, p99, max(0, int(data[1]) - calls * 5))


class PythonClient:
    """The fallback. Heavier than the servers that it loads: compare its ratios only with its own."""

    name = "python"

    def __init__(self, scratch: Path) -> None:
        self._request = scratch / "request.bin"

    async def run(self, target: Target, calls: int, in_flight: int) -> LoadResult:
        """Send `calls` calls, `in_flight` at a time, from as many processes as h2load would use connections."""
        self._request.write_bytes(target.request)
        processes = _connections(in_flight)
        share = calls // processes
        outputs = await asyncio.gather(
            *(
                _output_of(
                    *(sys.executable, "-m", "bench.python_client", target.address, target.method, str(self._request)),
                    str(share if index else calls - share * (processes - 1)),
                    str(in_flight // processes),
                )
                for index in range(processes)
            )
        )
        results = [json.loads(output) for output in outputs]
        p50, p99 = _percentiles([value for result in results for value in result["milliseconds"]])
        span = max(result["end"] for result in results) - min(result["begin"] for result in results)
        return LoadResult(calls / span, p50, p99, sum(result["answer_bytes"] for result in results))
