"""The load client: gRPC calls over bare HTTP/2, from one process that costs the machine next to nothing.

    python -m bench.http2_client ADDRESS,… METHOD REQUESTS_FILE CALLS IN_FLIGHT

The requests of the file (bench.load.write_requests) are sent in turn, from the first again when all have been. Prints
a JSON object: calls_per_second, p50_ms, p99_ms, data_bytes (of all answers, with gRPC's 5 bytes before each message).

A gRPC client takes as much of a processor as the servers that it loads. This one knows no more of HTTP/2 (RFC 9113)
than servers of gRPC make use of: header blocks are prepared once, those of answers are not even decoded. What tells
whether a call succeeded is its message: errors have none.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import cast

import uvloop

from bench.load import read_requests

MAX_REQUEST_BYTES = 16 * 1024 - 5
"""A request and gRPC's 5 bytes before it are one frame, of the largest size that every server takes."""

CONNECTIONS = 4
"""At most; fewer if there are fewer calls in flight."""

_CONNECT_SECONDS = 5.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535
_HEAD = 9
"""Bytes before a frame's payload: length (3), kind, flags, stream (4)."""
_CALL_HEAD = bytes((_HEADERS, _END_HEADERS))
_CALL_DATA = bytes((_DATA, _END_STREAM))

_GRPC_PREFIX = struct.Struct(">BI")
_LENGTH = struct.Struct(">I")


class Failed(Exception):
    """The server has closed the connection, or does not speak as gRPC servers do."""


def _frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
    """A frame about the connection as a whole."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + payload


def _text(value: str) -> bytes:
    """A string of a header block (RFC 7541, section 5.2), without Huffman coding."""
    encoded = value.encode()
    if len(encoded) > 126:
        raise ValueError(f"{value} is too long for the header block that is made here")
    return bytes([len(encoded)]) + encoded


def header_blocks(method: str, address: str) -> tuple[bytes, bytes]:
    """The header block of a connection's first call, which puts all into the dynamic table, and that of the others."""
    first = (
        b"\x83\x86"  # :method POST, :scheme http
        + (b"\x44" + _text(method))  # :path, and remember it
        + (b"\x41" + _text(address))  # :authority
        + (b"\x5f" + _text("application/grpc"))  # content-type
        + (b"\x40" + _text("te") + _text("trailers"))
    )
    return first, b"\x83\x86" + bytes(0x80 | place for place in (65, 64, 63, 62))


class _Connection(asyncio.Protocol):
    """Keeps calls in flight on one connection, as long as there are requests."""

    def __init__(self, blocks: tuple[bytes, bytes], requests: Iterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done when the server has answered."""
        self.done: asyncio.Future[None] = loop.create_future()
        """Done when there are no more requests and all were answered."""
        self.seconds: list[float] = []
        """What each call took."""
        self.data_bytes = 0
        self._first_block, self._block = blocks
        self._requests = requests
        self._window = _FIRST_WINDOW
        self._stream = 1
        self._begun: dict[int, float] = {}
        self._owed = 0
        self._held: bytes | None = None
        self._received = b""
        self._transport: asyncio.Transport

    def send(self, calls: int) -> None:
        """Send as many more requests, in one write, those that the server's window has no room for later."""
        self._owed += calls
        now = perf_counter()
        parts: list[bytes] = []
        while self._owed:
            request = self._held if self._held is not None else next(self._requests, None)
            if request is None:
                self._owed = 0
                break
            size = len(request) + _GRPC_PREFIX.size
            if size > self._window:
                self._held = request
                break
            self._held = None
            self._owed -= 1
            self._window -= size
            stream = self._stream.to_bytes(4, "big")
            parts += (
                len(self._first_block).to_bytes(3, "big"), _CALL_HEAD, stream, self._first_block,
                size.to_bytes(3, "big"), _CALL_DATA, stream, _GRPC_PREFIX.pack(0, len(request)), request,
            )  # fmt: skip
            self._first_block = self._block
            self._begun[self._stream] = now
            self._stream += 2
        if parts:
            self._transport.write(b"".join(parts))
        elif not self._begun and self._held is None and not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
            + _frame(_WINDOW_UPDATE, 0, _LENGTH.pack(_LARGEST_WINDOW - _FIRST_WINDOW))
        )

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        received = self._received + data if self._received else data
        at, end, answered, now = 0, len(received), 0, perf_counter()
        while end - at >= _HEAD:
            behind = at + _HEAD + int.from_bytes(received[at : at + 3], "big")
            if behind > end:
                break
            kind, flags = received[at + 3], received[at + 4]
            if kind == _DATA:
                self.data_bytes += behind - at - _HEAD
            if kind == _RST_STREAM or (kind <= _HEADERS and flags & _END_STREAM):
                begun = self._begun.pop(int.from_bytes(received[at + 5 : at + _HEAD], "big"), None)
                if begun is not None:  # a stream may be reset after its end
                    self.seconds.append(now - begun)
                    answered += 1
            elif kind > _RST_STREAM:
                self._control(kind, flags, received[at + 5 : at + _HEAD], received[at + _HEAD : behind])
            at = behind
        self._received = received[at:]
        if answered or self._held is not None:
            self.send(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(Failed(f"the connection is lost: {exc or 'the server has closed it'}"))

    def _control(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK))
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, payload))
        elif kind == _WINDOW_UPDATE and not any(stream):
            self._window += _LENGTH.unpack(payload)[0]
        elif kind == _GOAWAY:
            self._transport.abort()


async def _load(
    addresses: Sequence[str], method: str, requests: Sequence[bytes], calls: int, in_flight: int
) -> dict[str, float | int]:
    if max(map(len, requests)) > MAX_REQUEST_BYTES:
        raise ValueError(f"a request has more than {MAX_REQUEST_BYTES} bytes")
    left = islice(cycle(requests), calls)
    count = min(CONNECTIONS, in_flight)
    connections = [await _connect(addresses[number % len(addresses)], method, left) for number in range(count)]
    begin = perf_counter()
    for number, connection in enumerate(connections):
        connection.send(in_flight // count + (number < in_flight % count))
    await asyncio.gather(*(connection.done for connection in connections))
    seconds = perf_counter() - begin
    for connection in connections:
        connection.close()
    cuts = quantiles((value for each in connections for value in each.seconds), n=100, method="inclusive")
    return {
        "calls_per_second": calls / seconds,
        "p50_ms": 1000 * cuts[49],
        "p99_ms": 1000 * cuts[98],
        "data_bytes": sum(each.data_bytes for each in connections),
    }


async def _connect(address: str, method: str, requests: Iterator[bytes]) -> _Connection:
    host, port = address.rsplit(":", 1)
    connection = _Connection(header_blocks(method, address), requests)
    async with asyncio.timeout(_CONNECT_SECONDS):
        await asyncio.get_running_loop().create_connection(lambda: connection, host, int(port))
        await connection.ready
    return connection


if __name__ == "__main__":
    _addresses, _method, _file, _calls, _in_flight = sys.argv[1:]
    _requests = read_requests(Path(_file))
    _result = uvloop.run(_load(_addresses.split(","), _method, _requests, int(_calls), int(_in_flight)))
    json.dump(_result, sys.stdout)
