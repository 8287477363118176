"""A worker process: its event loop, its link to the main process, and the gRPC server in it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from cqrs.errors import OperatorError
from cqrs.serving.grpc_server import GrpcServer
from cqrs.serving.health import Component, Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.metrics import GaugeFunction, ServerMetrics
from cqrs.serving.process import EXIT_SOFTWARE, new_event_loop, settle
from cqrs.workers.link import Link
from cqrs.workers.remote import RemoteCommands

_log = get_logger(__name__)


class Services(Protocol):
    """What a worker serves."""

    def add_to(self, server: GrpcServer) -> None:
        """Add all services."""
        ...

    def head_moved(self, position: int) -> None:
        """The log has got to this position."""
        ...

    def close(self) -> None:
        """Give back what it holds, once nothing is served any more."""
        ...


class WorkerContext:
    """What services in a worker are built with."""

    def __init__(self, link: Link, metrics: ServerMetrics, readiness: Readiness, max_unsent_bytes: int) -> None:
        self.commands = RemoteCommands(link, max_unsent_bytes)
        """The main process's committer."""
        self.metrics = metrics
        """The worker's metrics; the main process shows them."""
        self.readiness = readiness
        """The main process's readiness."""


MakeServer = Callable[[str, ServerMetrics, Readiness], GrpcServer]
"""(address to listen on, metrics, readiness) → the server of a worker, without services."""

MakeServices = Callable[[WorkerContext], Services]


def run_worker(end: socket.socket, make_server: MakeServer, make_services: MakeServices, max_unsent_bytes: int) -> int:
    """Serve until the main process says stop; returns the exit status.

    When the main process is gone there is nothing to put in order: this one ends at once, with its calls.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_Worker(make_server, make_services, max_unsent_bytes).run(end))


class _Worker:
    def __init__(self, make_server: MakeServer, make_services: MakeServices, max_unsent_bytes: int) -> None:
        self._make_server = make_server
        self._make_services = make_services
        self._max_unsent_bytes = max_unsent_bytes
        self._link = Link(self._message, self._lost)
        self._listen: asyncio.Future[str]
        self._drain = asyncio.Event()
        self._ended = False
        self._context: WorkerContext
        self._services: Services | None = None

    async def run(self, end: socket.socket) -> int:
        self._listen = asyncio.get_running_loop().create_future()
        metrics = ServerMetrics(of_process=False)
        metrics.registry.register(_ResourceUse())
        self._context = WorkerContext(self._link, metrics, Readiness(told_elsewhere=True), self._max_unsent_bytes)
        await self._link.open(end)
        server = self._make_server(await self._listen, metrics, self._context.readiness)
        try:
            self._services = self._make_services(self._context)
            self._services.add_to(server)
            await server.start()
        except OperatorError as error:
            self._link.send("failed", str(error))
            await self._drain.wait()
            return EXIT_SOFTWARE
        settle()
        self._link.send("serving", server.address)
        await self._drain.wait()
        await server.drain()
        self._services.close()
        self._ended = True
        self._link.close()
        return 0

    def _message(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "answers":
            self._context.commands.answered(message[1])
        elif kind == "head":
            if self._services is not None:
                self._services.head_moved(message[1])
        elif kind == "readiness":
            for component in message[1]:
                self._context.readiness.put(Component(*component))
        elif kind == "metrics":
            self._link.send("metrics", list(self._families()))
        elif kind == "serve":
            self._listen.set_result(message[1])
        elif kind == "drain":
            self._drain.set()

    def _families(self) -> Iterator[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]:
        for family in self._context.metrics.registry.collect():
            samples = [(sample.name, dict(sample.labels), float(sample.value)) for sample in family.samples]
            yield family.name, family.documentation, family.type, samples

    def _lost(self) -> None:
        if not self._ended:
            os._exit(EXIT_SOFTWARE)


class _ResourceUse(GaugeFunction):
    """What the worker process takes; the usual names of such metrics are the main process's."""

    def __init__(self) -> None:
        super().__init__("orderstream_worker_cpu_seconds", "Processor time that a worker process has used.")

    def values(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """One value."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        yield (), used.ru_utime + used.ru_stime
