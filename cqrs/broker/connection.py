"""Connections to the broker that outlive its absence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import nats.errors
from nats.aio.client import Client

from cqrs.errors import OrderstreamError, UnsupportedBroker
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal

OLDEST_BROKER = (2, 12, 0)
"""The first nats-server with atomic batches, which the relay publishes by."""

_PING_SECONDS = 3
_PINGS_UNANSWERED = 2
"""A broker that does not answer is taken for gone after at most (2 + 1) × 3 s."""

_RECONNECT_SECONDS = 0.25
_CONNECT_SECONDS = 2
_FLUSH_SECONDS = 5.0

_PENDING_BYTES = 8 * 1024 * 1024
"""What may wait for the socket. Past it a publisher waits, or, while disconnected, gets OutboundBufferLimitError."""

Callback = Callable[[], Awaitable[None]]

_log = get_logger(__name__)


class BrokerLost(OrderstreamError):
    """The connection was closed for good: reconnecting does not mend it (credentials, a protocol error)."""


class BrokerConnection:
    """A connection that is made in the background, and made again whenever it is lost, for as long as it takes.

    `client` is the same object throughout, so JetStream contexts and subscriptions live on: nats-py subscribes again by
    itself. What was published in between may be lost, or be sent late: publishers should look at `connected` first.

        connection = BrokerConnection(url, "projector", on_connect=…, on_disconnect=…)
        background.start("broker connection", connection.run(stop))
        if await connection.wait_connected(stop): …
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        on_connect: Callback | None = None,
        on_disconnect: Callback | None = None,
    ) -> None:
        """Describe a connection; nothing is opened.

        Args:
            url: `nats://HOST:PORT`, or `tls://…`; several, separated by commas, for a cluster.
            name: what the broker shows the connection as.
            on_connect: awaited after each connect, the first as well as any later one. It must not raise.
            on_disconnect: awaited after each loss.
        """
        self._urls = [part.strip() for part in url.split(",")]
        self._name = name
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[None] | None = None
        self._closing = False
        self._told: set[str] = set()
        self.client = Client()
        """nats-py's client. It can be used once `wait_connected` has returned True for the first time."""
        self.connected = False
        """Whether the broker can be reached now, as far as is known."""
        self.since = time.monotonic()
        """When `connected` last changed, by `time.monotonic()`."""
        self.last_error = ""
        """Why the broker cannot be reached, as the last attempt has told it; empty while connected."""
        self.connects = 0
        """How often it has connected. A reader that sees it change may have missed something."""

    async def run(self, stop: StopSignal) -> None:
        """Connect, and stay connected until `close` or cancelled. To be run as a background task.

        `stop` ends it only while there is no connection yet: what drains may still need one.

        Raises:
            UnsupportedBroker: the broker is too old.
            BrokerLost: the connection is closed for good.
        """
        self._ended = asyncio.get_running_loop().create_future()
        # Tasks of their own: nats-py swallows a cancellation in some places, and it must not be ours.
        connecting = asyncio.create_task(self._connect(), name=f"connect-{self._name}")
        stopping = asyncio.create_task(stop.wait(), name=f"connect-{self._name}-stop")
        try:
            await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
                await self._on_connected()
                await self._ended
        finally:
            stopping.cancel()
            connecting.cancel()
            await self.close()

    async def _connect(self) -> None:
        await self.client.connect(
            servers=self._urls,
            name=self._name,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
            closed_cb=self._on_closed,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            # The annotation wants an int; nats-py only adds and sleeps it.
            reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=_PINGS_UNANSWERED,
            pending_size=_PENDING_BYTES,
            flush_timeout=_FLUSH_SECONDS,
        )

    async def wait_connected(self, stop: StopSignal) -> bool:
        """Wait until the broker can be reached; False if the process should stop first."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not self.connected and not stop.is_set():
                changing = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({stopping, changing}, return_when=asyncio.FIRST_COMPLETED)
                changing.cancel()
        finally:
            stopping.cancel()
        return not stop.is_set()

    async def close(self) -> None:
        """Send what was published, if the broker is there, and close the connection; `run` then returns."""
        if self._closing:
            return
        self._closing = True
        if self.client.is_connected:
            with suppress(nats.errors.Error, TimeoutError, OSError):
                await self.client.flush(timeout=1)
        await self.client.close()
        self._set_connected(False)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _set_connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self.since = time.monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _on_connected(self) -> None:
        try:
            check_broker(self.client)
        except UnsupportedBroker as error:
            self._fail(error)
            return
        self._told.clear()
        self.last_error = ""
        self.connects += 1
        self._set_connected(True)
        _log.info("broker is connected", url=_without_password(self._urls), connects=self.connects)
        if self._on_connect is not None:
            await self._guarded(self._on_connect)

    async def _on_disconnected(self) -> None:
        if self._closing or not self.connected:
            return
        self._set_connected(False)
        _log.warning("broker is disconnected; reconnecting", url=_without_password(self._urls))
        if self._on_disconnect is not None:
            await self._guarded(self._on_disconnect)

    async def _on_closed(self) -> None:
        if not self._closing:
            self._set_connected(False)
            self._fail(BrokerLost(f"the broker closed the connection for good: {self.client.last_error}"))

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if self.connected:
            _log.warning("broker connection has an error", error=text)
            return
        self.last_error = text
        # Attempts come four times a second: each reason is told once an outage.
        if text in self._told:
            _log.debug("broker cannot be reached", error=text)
            return
        self._told.add(text)
        _log.warning("broker cannot be reached; trying again", url=_without_password(self._urls), error=text)

    async def _guarded(self, callback: Callback) -> None:
        """A callback's error must end the process, not nats-py's reconnect task, which would die of it unseen."""
        try:
            await callback()
        except Exception as error:  # noqa: BLE001 - handed on to whoever awaits run()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)
        else:
            _log.error("broker connection failed after its end", exc_info=error)


async def connect_broker(url: str, name: str, *, timeout_seconds: float = 5.0) -> Client:
    """A plain connection for tools that are of no use without a broker.

    Raises:
        UnsupportedBroker: the broker is too old.
        ConnectionError: it cannot be reached in time.
    """
    client = Client()
    try:
        async with asyncio.timeout(timeout_seconds):
            await client.connect(
                servers=[part.strip() for part in url.split(",")],
                name=name,
                error_cb=_ignore,
                allow_reconnect=False,
                # Of the first connect too: one more attempt, after a moment.
                max_reconnect_attempts=1,
                reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]
                connect_timeout=_CONNECT_SECONDS,
                ping_interval=_PING_SECONDS,
                max_outstanding_pings=_PINGS_UNANSWERED,
            )
    except (nats.errors.Error, OSError) as error:
        raise ConnectionError(
            f"no broker at {_without_password([url])}: {str(error) or type(error).__name__}"
        ) from error
    try:
        check_broker(client)
    except UnsupportedBroker:
        await client.close()
        raise
    return client


def check_broker(client: Client) -> None:
    """Make sure that the connected broker has what the log needs.

    Raises:
        UnsupportedBroker: it has not.
    """
    version = client.connected_server_version
    if (version.major, version.minor, version.patch) < OLDEST_BROKER:
        raise UnsupportedBroker(f"{version!r} is too old: {'.'.join(map(str, OLDEST_BROKER))} or newer is needed")


async def _ignore(_error: Exception) -> None:
    """connect() raises what it also reports here."""


def _without_password(urls: list[str]) -> str:
    return ",".join(url.rpartition("@")[2] for url in urls)
