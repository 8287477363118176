"""The HTTP endpoint for operators: `/metrics` for Prometheus, `/healthz` for probes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from cqrs.serving.health import Readiness

_CLIENT_SECONDS = 5.0
"""A client that has not sent its request and read its answer by then is cut off."""

_MAX_HEAD_BYTES = 16 * 1024

_TEXT = "text/plain; charset=utf-8"


class HttpEndpoint:
    """Answers GET and HEAD on two paths, one request a connection.

    It runs on the server's event loop, so what it reports is consistent, and a process that cannot answer it cannot
    answer calls either.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        readiness: Readiness,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Show these; `refresh` is awaited before metrics are."""
        self._registry = registry
        self._readiness = readiness
        self._refresh = refresh
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self.address = ""
        """Where it listens, HOST:PORT; empty before `start`."""

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD_BYTES)
        bound_port = self._server.sockets[0].getsockname()[1]
        self.address = f"[{host}]:{bound_port}" if ":" in host else f"{host}:{bound_port}"

    async def stop(self) -> None:
        """Listen no more, and cut off who is still connected."""
        if self._server is not None:
            self._server.close()
            # From Python 3.12 on wait_closed() waits for connections, for ever for a peer that never reads.
            for client in self._clients:
                client.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            async with asyncio.timeout(_CLIENT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, content_type, body = await self._answer(head.decode("latin-1"))
                lines = (
                    f"HTTP/1.1 {status.value} {status.phrase}",
                    f"Content-Type: {content_type}",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                )
                writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))
                if not head.startswith(b"HEAD "):
                    writer.write(body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return  # A client that is gone, too slow or no HTTP client: there is nobody to tell.
        finally:
            # close() alone would keep the rest of an answer, and the connection, until the peer reads.
            writer.transport.abort()
            self._clients.discard(writer)

    async def _answer(self, head: str) -> tuple[HTTPStatus, str, bytes]:
        request_line, *header_lines = head.split("\r\n")
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"GET and HEAD only\n"
        if path == "/metrics":
            if self._refresh is not None:
                await self._refresh()
            headers = dict(line.lower().split(": ", 1) for line in header_lines if ": " in line)
            encode, content_type = choose_encoder(headers.get("accept", ""))
            return HTTPStatus.OK, content_type, encode(self._registry)
        if path == "/healthz":
            status = HTTPStatus.OK if self._readiness.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _TEXT, self._readiness.describe().encode()
        return HTTPStatus.NOT_FOUND, _TEXT, b"see /metrics and /healthz\n"
