"""One process of the fallback load client; bench.load starts it.

    python -m bench.python_client ADDRESS METHOD REQUEST_FILE CALLS IN_FLIGHT

prints a JSON object: begin and end (seconds, the machine's monotonic clock), milliseconds (of each call),
answer_bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import monotonic

import grpc
import uvloop

_CONNECT_SECONDS = 5.0


async def _load(address: str, method: str, request: bytes, calls: int, in_flight: int) -> dict[str, object]:
    milliseconds: list[float] = []
    answer_bytes = 0
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), _CONNECT_SECONDS)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        left = calls

        async def caller() -> None:
            nonlocal left, answer_bytes
            while left > 0:
                left -= 1
                begin = monotonic()
                answer = await call(request)
                answer_bytes += len(answer)
                milliseconds.append((monotonic() - begin) * 1000)

        begin = monotonic()
        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        end = monotonic()
    return {"begin": begin, "end": end, "milliseconds": milliseconds, "answer_bytes": answer_bytes}


if __name__ == "__main__":
    _address, _method, _file, _calls, _in_flight = sys.argv[1:]
    _result = uvloop.run(_load(_address, _method, Path(_file).read_bytes(), int(_calls), int(_in_flight)))
    json.dump(_result, sys.stdout)
