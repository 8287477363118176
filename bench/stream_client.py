"""One process that sends messages on bidirectional streams; bench.load starts it.

    python -m bench.stream_client ADDRESS,… METHOD REQUESTS_FILE MESSAGES STREAMS

sends MESSAGES messages in all, those of the file in turn, as far ahead of their answers as the server lets it. Prints a
JSON object: messages_per_second, answer_bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

import grpc
import uvloop

from bench.load import read_requests

_CONNECT_SECONDS = 5.0


async def _messages(left: Iterator[bytes]) -> AsyncIterator[bytes]:
    for message in left:
        yield message


async def _load(
    addresses: Sequence[str], method: str, requests: Sequence[bytes], messages: int, streams: int
) -> dict[str, float | int]:
    left = islice(cycle(requests), messages)
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses]
        for channel in channels:
            await asyncio.wait_for(channel.channel_ready(), _CONNECT_SECONDS)

        async def one_stream(number: int) -> tuple[int, int]:
            open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            open_stream = channels[number % len(channels)].stream_stream(method)
            sizes = [len(answer) async for answer in open_stream(_messages(left))]
            return len(sizes), sum(sizes)

        begin = perf_counter()
        results = await asyncio.gather(*(one_stream(number) for number in range(streams)))
        seconds = perf_counter() - begin
    if sum(answers for answers, _ in results) != messages:
        raise RuntimeError(f"{messages} messages were sent, answers were {[answers for answers, _ in results]}")
    return {"messages_per_second": messages / seconds, "answer_bytes": sum(size for _, size in results)}


if __name__ == "__main__":
    _addresses, _method, _file, _count, _streams = sys.argv[1:]
    _requests = read_requests(Path(_file))
    _result = uvloop.run(_load(_addresses.split(","), _method, _requests, int(_count), int(_streams)))
    json.dump(_result, sys.stdout)
