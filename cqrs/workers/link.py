"""The connection between the main process and one of its workers: whole messages over a pair of sockets.

A message is a tuple of plain values, in the format of `marshal`: both ends are one program of one interpreter, one
forked from the other, and nobody else holds the sockets (docs/adr/0016-worker-processes.md).
"""

from __future__ import annotations

import asyncio
import marshal
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

_LENGTH = struct.Struct("<I")

_BEHIND_BYTES = 1024 * 1024
"""An end that leaves more than this unread does not keep up."""


class Link(asyncio.Protocol):
    """One end."""

    def __init__(
        self,
        on_message: Callable[[tuple[Any, ...]], None],
        on_lost: Callable[[], None],
        on_caught_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Make an end; `open` connects it.

        Args:
            on_message: told each message, in order. What it raises ends the connection, and is logged.
            on_lost: told once that the other end is gone, or that this one was closed.
            on_caught_up: told when `is_behind` has become False.
        """
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_caught_up = on_caught_up
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self.is_behind = False
        """The other end does not read: what it need not be told at once should wait."""

    async def open(self, end: socket.socket) -> None:
        """Take this end of the pair."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self, end)

    def send(self, *message: Any) -> None:
        """Send a message. To an end that is gone it goes nowhere: `on_lost` has told that."""
        if self._transport is not None:
            body = marshal.dumps(message)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    @property
    def unsent_bytes(self) -> int:
        """What the other end has not read yet, without what the kernel holds."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Send what is waiting, then close."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=_BEHIND_BYTES)

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_behind = True

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_behind = False
        self._on_caught_up()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        received = self._received
        received += data
        start, end = 0, len(received)
        while end - start >= _LENGTH.size:
            behind = start + _LENGTH.size + _LENGTH.unpack_from(received, start)[0]
            if behind > end:
                break
            with memoryview(received) as view, view[start + _LENGTH.size : behind] as body:
                message = marshal.loads(body)  # noqa: S302 - from our own process
            start = behind
            self._on_message(message)
        # The front of a bytearray is cut off without moving the rest.
        del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._transport = None
        self._on_lost()
