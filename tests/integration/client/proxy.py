"""A TCP proxy that misbehaves as networks do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Passes bytes on to a server, until it cuts the connections or holds back what the server says."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.answers_pass = asyncio.Event()
        self.answers_pass.set()
        self.connections = 0
        self.cuts = 0
        self.address = ""
        self._bounds = (0, 0)
        self._bytes_left: int | None = None
        """Until the next cut; None: none is to come."""

    def cut(self) -> None:
        """Break all connections, in the middle of whatever is under way."""
        for writer in tuple(self._writers):
            writer.transport.abort()
            self.cuts += 1

    def cut_as_it_passes(self, fewest: int, most: int) -> None:
        """From now on, cut all connections whenever so many bytes have passed, both ways together; at random between.

        By bytes and not by time: however fast the server is, there are cuts in the middle of its work.
        """
        self._random = random.Random(5)
        self._bounds = (fewest, most)
        self._bytes_left = self._random.randint(*self._bounds)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        for source, sink, back in ((reader, server_writer, False), (server_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, back=back))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        self.cut()
        for pump in tuple(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    def _cuts_at(self, size: int) -> bool:
        """Whether the next cut is due when so many more bytes have come."""
        if self._bytes_left is None:
            return False
        self._bytes_left -= size
        if self._bytes_left > 0:
            return False
        self._bytes_left = self._random.randint(*self._bounds)
        return True

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool) -> None:
        try:
            while data := await source.read(65536):
                if back:
                    await self.answers_pass.wait()
                if self._cuts_at(len(data)):
                    self.cut()
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            sink.transport.abort()


@asynccontextmanager
async def proxy_to(upstream: str) -> AsyncIterator[Proxy]:
    """A proxy in front of `upstream`, HOST:PORT."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
