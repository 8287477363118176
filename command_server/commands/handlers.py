"""The gRPC handlers of the command services, in the workers: bytes in, and out those that the main process made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from command_server.commands.bulk import BulkMethod
from command_server.commands.bulk_stream import BulkCalls
from command_server.commands.call_metadata import for_events
from command_server.commands.catalog import METHODS
from cqrs.serving.deadlines import remaining_seconds
from cqrs.workers.pace import Pace
from cqrs.workers.remote import RemoteCommands

REPLAYED = (("x-idempotent-replayed", "true"),)
"""Trailing metadata of an answer that an earlier call with the same request id stored."""

_Context = grpc.aio.ServicerContext[Any, Any]


def command_services(
    commands: RemoteCommands, pace: Pace, draining: asyncio.Event
) -> Iterator[tuple[str, grpc.GenericRpcHandler]]:
    """Each command service by its full name, with its handlers.

    Args:
        commands: executes.
        pace: how much of all streams may be under way.
        draining: set when streams should end.
    """
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for index, method in enumerate(METHODS):
        handler: grpc.RpcMethodHandler[Any, Any]
        if isinstance(method, BulkMethod):
            handler = grpc.stream_stream_rpc_method_handler(BulkCalls(index, method, commands, pace, draining).handle)
        else:
            handler = grpc.unary_unary_rpc_method_handler(_unary_handler(index, commands))
        services.setdefault(method.service, {})[method.name] = handler
    for service, handlers in services.items():
        yield service, grpc.method_handlers_generic_handler(service, handlers)


def _unary_handler(index: int, commands: RemoteCommands) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(request: bytes, context: _Context) -> bytes:
        call_metadata = for_events(context.invocation_metadata())
        response, replayed = await commands.execute(index, request, call_metadata, remaining_seconds(context))
        if replayed:
            context.set_trailing_metadata(REPLAYED)
        return response

    return handle
