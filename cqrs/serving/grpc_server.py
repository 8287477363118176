"""The gRPC server of a process, with everything that each of our servers has around its services."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc
import grpc.aio

from cqrs.errors import ConfigurationError
from cqrs.serving.admission import Admission
from cqrs.serving.handlers import Router
from cqrs.serving.health import HEALTH_SERVICE, HealthServicer, Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import ServerMetrics
from cqrs.serving.presence import Presence
from cqrs.serving.reflection import reflection_handlers
from cqrs.serving.settings import ServerSettings, split_address
from cqrs.serving.tls import server_credentials

_STOP_GRACE_SECONDS = 1.0
"""After the drain: time for the last answers to leave, and for refused calls to be told so."""

_log = get_logger(__name__)


class GrpcServer:
    """Serves services with health, reflection, metrics, rich errors, admission limit, TLS and drain.

        server = GrpcServer(settings, metrics=metrics, readiness=readiness)
        server.add(lambda s: add_EventServiceServicer_to_server(servicer, s), "orderstream.events.v1.EventService")
        await server.start()
        await stop.wait()
        await server.drain()

    Implementations must be `async` (coroutine functions or asynchronous generators). They raise
    cqrs.errors.ServiceError for answers other than OK; any other exception is answered INTERNAL and logged.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        metrics: ServerMetrics,
        readiness: Readiness,
        shown_elsewhere: bool = False,
        share_port: bool = False,
    ) -> None:
        """Build it.

        Args:
            settings: where to listen, limits, TLS.
            metrics: of this process.
            readiness: of this process.
            shown_elsewhere: another process has /metrics, /healthz and the ready file, for this one too.
            share_port: other processes may listen on the same port, and the kernel spreads connections over them.
        """
        self._settings = settings
        self._presence = None if shown_elsewhere else Presence(settings, metrics.registry, readiness)
        self._share_port = share_port
        self._readiness = readiness
        self._admission = Admission(settings.max_concurrent_calls)
        self._router = Router(self._admission, metrics)
        self._services: set[str] = set()
        self._server: grpc.aio.Server | None = None
        self._health: HealthServicer | None = None
        self.address = ""
        """Where it listens, HOST:PORT; empty before `start`."""
        self.draining = self._admission.draining
        """asyncio.Event, set once the drain has begun: a stream that could go on for ever should end then."""

    @property
    def metrics_address(self) -> str | None:
        """Where /metrics and /healthz are, HOST:PORT; None if they are not here."""
        return self._presence.metrics_address if self._presence is not None else None

    def add(self, register: Callable[[grpc.aio.Server], None], *service_names: str) -> None:
        """Add services by what the generated `add_…Servicer_to_server` does; to be called before `start`."""
        # The router has the two methods of grpc.aio.Server that generated code calls.
        register(cast("grpc.aio.Server", self._router))
        self._services.update(service_names)

    def add_generic(self, handler: grpc.GenericRpcHandler, *service_names: str) -> None:
        """Add a handler for whole services; what it answers must depend on the method only. Before `start`.

        A method that was added with `add` wins.
        """
        self._router.add_generic_rpc_handlers([handler])
        self._services.update(service_names)

    async def start(self) -> None:
        """Bind and serve; then the process is announced.

        Raises:
            ConfigurationError: an address cannot be had, or a TLS file cannot be read.
        """
        self._add_health_and_reflection()
        server = grpc.aio.server(
            handlers=(self._router,),
            options=(
                # On by default: two servers would then share a port without a word.
                ("grpc.so_reuseport", int(self._share_port)),
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.max_send_message_length", self._settings.max_message_bytes),
                # gRPC core keeps 1,000 calls that nobody has accepted yet, and ends more of them as CANCELLED. Ours are
                # accepted at once, to be refused with a reason if they are too many (measured: a burst of 6,000).
                ("grpc.server.max_pending_requests", 100_000),
                ("grpc.server.max_pending_requests_hard_limit", 200_000),
                # Clients behind balancers and NATs send keepalive pings; allow one each 10 s, also between calls.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # A peer that vanished without a word would hold its stream for two hours.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ),
        )
        self.address = self._bind(server)
        if self._presence is not None:
            try:
                await self._presence.open()
            except ConfigurationError:
                await server.stop(None)
                raise
        await server.start()
        self._server = server
        if self._presence is not None:
            self._presence.announce(self.address)

    async def drain(self) -> None:
        """Stop without hurting anybody: NOT_SERVING, refuse new calls, let running ones finish, then stop.

        Calls that still run after `drain_seconds` are cancelled. May be called again, and without `start`.
        """
        server, self._server = self._server, None
        if self._presence is not None:
            self._presence.withdraw()
        if server is None:
            return
        self._readiness.drain()
        self._admission.close()
        if not await self._admission.wait_idle(self._settings.drain_seconds):
            _log.warning("calls outlasted the drain and are cancelled", calls=self._admission.running)
            await server.stop(None)
        if self._health is not None:
            self._health.close()
        await server.stop(_STOP_GRACE_SECONDS)
        if self._presence is not None:
            await self._presence.close()

    def _add_health_and_reflection(self) -> None:
        self._health = HealthServicer(self._readiness, frozenset(self._services))
        self._router.add_service(HEALTH_SERVICE, self._health.method_handlers(), admitted=False)
        for service, methods in reflection_handlers({*self._services, HEALTH_SERVICE}).items():
            self._router.add_service(service, methods, admitted=False)

    def _bind(self, server: grpc.aio.Server) -> str:
        listen = self._settings.listen
        host, _ = split_address(listen)
        credentials = server_credentials(self._settings)
        try:
            if credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {listen}: the address is in use or not of this machine, or a TLS file is not PEM"
            ) from error
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
