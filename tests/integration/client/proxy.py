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

    def cut(self) -> None:
        """Break all connections, in the middle of whatever is under way."""
        for writer in tuple(self._writers):
            writer.transport.abort()
            self.cuts += 1

    async def cut_at_random(self, shortest: float, longest: float) -> None:
        """Cut again and again, until cancelled. Seconds between two cuts."""
        pauses = random.Random(5)
        while True:
            await asyncio.sleep(pauses.uniform(shortest, longest))
            self.cut()

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

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool) -> None:
        try:
            while data := await source.read(65536):
                if back:
                    await self.answers_pass.wait()
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
