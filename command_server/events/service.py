"""The servicer of EventService: checks requests and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc
import grpc.aio

from command_server.events.causation import CausationTrees
from command_server.events.description import LogDescription
from command_server.events.metrics import SubscriptionMetrics
from command_server.events.reading import LogReading
from command_server.events.requests import (
    check_causation_tree,
    check_read_aggregate,
    check_read_log,
    check_subscribe,
)
from command_server.events.states import AggregateStates
from command_server.events.store_access import ReaderThreads
from command_server.events.subscriptions import Subscriptions
from command_server.events.tail import SharedTail, TailLimits
from cqrs.snapshots.rules import Snapshots
from cqrs.store.queries import LogQueries
from orderstream.events.v1.event_service_pb2 import (
    DescribeLogRequest,
    DescribeLogResponse,
    GetAggregateStateRequest,
    GetAggregateStateResponse,
    GetCausationTreeRequest,
    GetCausationTreeResponse,
    ReadAggregateRequest,
    ReadAggregateResponse,
    ReadLogRequest,
    ReadLogResponse,
    SubscribeRequest,
)
from orderstream.events.v1.event_service_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server

SERVICE = "orderstream.events.v1.EventService"

_PAGE_BYTES = 1024 * 1024

_ServicerContext = grpc.aio.ServicerContext[Any, Any]


class EventServiceLimits(NamedTuple):
    """What EventService is bounded by."""

    max_message_bytes: int = 4 * 1024 * 1024
    """Largest message that may be sent; answers keep well below it."""
    max_subscribers: int = 500
    """Subscriptions at a time."""
    tail: TailLimits = TailLimits()


class EventService(EventServiceServicer):
    """Reads one page a transaction, on threads of its own; the client's flow control paces it."""

    def __init__(
        self,
        queries: LogQueries,
        threads: ReaderThreads,
        tail_thread: ReaderThreads,
        snapshots: Snapshots,
        metrics: SubscriptionMetrics,
        draining: asyncio.Event,
        limits: EventServiceLimits = EventServiceLimits(),  # noqa: B008 - is immutable
    ) -> None:
        """Join the parts.

        Args:
            queries: the log.
            threads: that read it.
            tail_thread: one more, for what is new: those who catch up must not make those wait who have.
            snapshots: from which states are folded.
            metrics: of the subscriptions.
            draining: set once the server drains: subscriptions end then.
            limits: see there.
        """
        page_bytes = min(_PAGE_BYTES, limits.max_message_bytes // 2)
        self._reading = LogReading(queries, threads, page_bytes)
        self._description = LogDescription(queries, threads)
        self._states = AggregateStates(queries, threads, snapshots)
        self._trees = CausationTrees(queries, threads, limits.max_message_bytes // 2)
        self._tail = SharedTail(queries, tail_thread, metrics, limits.tail, draining)
        self._subscriptions = Subscriptions(
            queries,
            threads,
            self._tail,
            metrics,
            max_subscribers=limits.max_subscribers,
            page_bytes=page_bytes,
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service. What Subscribe yields is serialised already (ADR 15), and sent as it is."""
        add_EventServiceServicer_to_server(self, server)
        subscribe: grpc.RpcMethodHandler[SubscribeRequest, bytes] = grpc.unary_stream_rpc_method_handler(
            self.Subscribe, SubscribeRequest.FromString, None
        )
        server.add_registered_method_handlers(SERVICE, {"Subscribe": subscribe})

    def head_moved(self, position: int) -> None:
        """The log has got to this position: subscribers want to know."""
        self._tail.head_moved(position)

    async def ReadAggregate(
        self, request: ReadAggregateRequest, context: _ServicerContext
    ) -> AsyncIterator[ReadAggregateResponse]:
        """See the contract."""
        async with aclosing(self._reading.read_aggregate(check_read_aggregate(request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def ReadLog(self, request: ReadLogRequest, context: _ServicerContext) -> AsyncIterator[ReadLogResponse]:
        """See the contract."""
        async with aclosing(self._reading.read_log(check_read_log(request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def Subscribe(self, request: SubscribeRequest, context: _ServicerContext) -> AsyncIterator[Any]:
        """See the contract. Yields serialised answers: see `add_to`."""
        async with aclosing(self._subscriptions.subscribe(check_subscribe(request))) as answers:
            async for answer in answers:
                yield answer

    async def GetAggregateState(
        self, request: GetAggregateStateRequest, context: _ServicerContext
    ) -> GetAggregateStateResponse:
        """See the contract."""
        return await self._states.get(request)

    async def GetCausationTree(
        self, request: GetCausationTreeRequest, context: _ServicerContext
    ) -> GetCausationTreeResponse:
        """See the contract."""
        return await self._trees.get(check_causation_tree(request))

    async def DescribeLog(self, request: DescribeLogRequest, context: _ServicerContext) -> DescribeLogResponse:
        """See the contract."""
        return await self._description.describe()
