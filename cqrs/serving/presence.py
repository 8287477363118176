"""What a process shows of itself: /metrics and /healthz, the ready file, and the log line that says where it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import CollectorRegistry

from cqrs.errors import ConfigurationError
from cqrs.serving.health import Readiness
from cqrs.serving.http_endpoint import HttpEndpoint
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import GaugeFunction
from cqrs.serving.ready_file import ReadyFile
from cqrs.serving.settings import ServerSettings, split_address

_log = get_logger(__name__)


class Presence:
    """Opened before the process serves, announced when it does, withdrawn when it drains, closed in the end."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: CollectorRegistry,
        readiness: Readiness,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Build it; `refresh` is awaited before metrics are shown."""
        self._settings = settings
        self._http = HttpEndpoint(registry, readiness, refresh) if settings.metrics_listen else None
        self._ready_file = ReadyFile(settings.ready_file) if settings.ready_file is not None else None
        registry.register(_ReadyGauge(readiness))

    @property
    def metrics_address(self) -> str | None:
        """Where /metrics and /healthz are, HOST:PORT; None if they are off."""
        return self._http.address if self._http is not None else None

    async def open(self) -> None:
        """Serve /metrics and /healthz.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        if self._http is None:
            return
        host, port = split_address(self._settings.metrics_listen)
        try:
            await self._http.start(host, port)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {self._settings.metrics_listen}: {error.strerror}") from error

    def announce(self, address: str) -> None:
        """Calls are served at `address`, HOST:PORT: tell it."""
        if self._ready_file is not None:
            self._ready_file.write(grpc_address=address, metrics_address=self.metrics_address)
        tls = self._settings.tls_certificate is not None
        _log.info("serving", grpc=address, metrics=self.metrics_address, tls=tls)

    def withdraw(self) -> None:
        """No more calls are let in."""
        if self._ready_file is not None:
            self._ready_file.remove()

    async def close(self) -> None:
        """Show nothing more."""
        self.withdraw()
        if self._http is not None:
            await self._http.stop()


class _ReadyGauge(GaugeFunction):
    """Whether the process is ready, component by component."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__(
            "orderstream_ready", '1 while the component is ready; "" is the process.', labels=("component",)
        )
        self._readiness = readiness

    def values(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """The process first, then its components."""
        yield ("",), float(self._readiness.is_ready)
        for component in self._readiness.components:
            yield (component.name,), float(not component.why_not_ready)
