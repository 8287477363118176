"""Readiness of a process, and the standard health service (grpc.health.v1) that tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from logging import DEBUG, INFO
from typing import Any, NamedTuple

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from cqrs.serving.logging import get_logger

HEALTH_SERVICE = "grpc.health.v1.Health"

_log = get_logger(__name__)


class Component(NamedTuple):
    """State of one thing that the process needs."""

    name: str
    why_not_ready: str
    """Empty while it is ready."""
    essential: bool
    """Whether the process is ready only while this is."""


class Readiness:
    """Whether the process can do its work: it can while every essential component is ready and it does not drain.

    Components are registered as not ready, so that a process is not ready before its parts have said so. To be used on
    the event loop's thread.
    """

    def __init__(self, *, told_elsewhere: bool = False) -> None:
        """Make it; `told_elsewhere`: changes are logged by the process that this one follows."""
        self._log_level = DEBUG if told_elsewhere else INFO
        self._components: dict[str, Component] = {}
        self._draining = False
        self._changed = asyncio.Event()

    def require(self, name: str, why_not_ready: str, *, essential: bool = True) -> None:
        """Register a component, not ready for now.

        Args:
            name: what operators call it.
            why_not_ready: what it waits for.
            essential: False for one that is shown but without which the process can do its work.
        """
        self._set(Component(name, why_not_ready, essential))

    def ready(self, name: str) -> None:
        """A registered component has become ready."""
        self.set(name, None)

    def not_ready(self, name: str, why: str) -> None:
        """A registered component has ceased to be ready."""
        self.set(name, why)

    def set(self, name: str, why_not_ready: str | None) -> None:
        """A registered component is ready (None), or not."""
        self._set(self._components[name]._replace(why_not_ready=why_not_ready or ""))

    def put(self, component: Component) -> None:
        """Take a component's state over from another process."""
        self._set(component)

    def drain(self) -> None:
        """The process stops: it is not ready from now on, whatever its components say."""
        self._draining = True
        self._notify()

    @property
    def is_ready(self) -> bool:
        """Whether the process can do its work."""
        return not self._draining and not any(
            component.why_not_ready and component.essential for component in self._components.values()
        )

    @property
    def components(self) -> tuple[Component, ...]:
        """All components, in the order of their registration."""
        return tuple(self._components.values())

    def describe(self) -> str:
        """One line a component, for people."""
        lines = ["ready" if self.is_ready else "draining" if self._draining else "not ready"]
        for component in self._components.values():
            state = f"not ready: {component.why_not_ready}" if component.why_not_ready else "ready"
            lines.append(f"{component.name}: {state}{'' if component.essential else ' (not essential)'}")
        return "\n".join(lines) + "\n"

    @property
    def next_change(self) -> asyncio.Event:
        """Set at the next change. Take it before looking at the state, or a change between the two goes unseen."""
        return self._changed

    def _set(self, component: Component) -> None:
        before = self._components.get(component.name)
        if before == component:
            return
        was_ready = self.is_ready
        self._components[component.name] = component
        if component.why_not_ready:
            _log.log(self._log_level, "component is not ready", component=component.name, why=component.why_not_ready)
        else:
            _log.log(self._log_level, "component is ready", component=component.name)
        if self.is_ready != was_ready:
            _log.log(self._log_level, "ready" if self.is_ready else "not ready")
        self._notify()

    def _notify(self) -> None:
        # Whoever waits holds the old event; the next to wait gets the new one. So no change is missed and none is seen
        # twice.
        self._changed.set()
        self._changed = asyncio.Event()


class HealthServicer:
    """grpc.health.v1: the process as a whole ("") and each of its services are SERVING while the process is ready."""

    def __init__(self, readiness: Readiness, services: frozenset[str]) -> None:
        self._readiness = readiness
        self._services = services | {""}
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all watches, so that they do not hold up the server's stop."""
        self._closed.set()

    async def check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Health.Check. NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service} here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def watch(
        self, request: health_pb2.HealthCheckRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Health.Watch: the state now and at each change. SERVICE_UNKNOWN for a service that is not here."""
        told = None
        while True:
            changed = self._readiness.next_change
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
                continue
            if self._closed.is_set():
                return
            await _first(changed.wait(), self._closed.wait())

    def _status(self, service: str) -> int:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._readiness.is_ready:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    def method_handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """The service's methods, for `GrpcServer`."""
        parse = health_pb2.HealthCheckRequest.FromString
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(
                self.check, request_deserializer=parse, response_serializer=serialize
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self.watch, request_deserializer=parse, response_serializer=serialize
            ),
        }


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when one of them has."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
