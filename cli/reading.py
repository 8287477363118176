"""Reads events that the log has already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cli.calls import connected
from cli.exit_codes import ExitCode
from cli.failures import CliError
from cli.options import Connection
from orderstream.events.v1.event_service_pb2 import ReadAggregateRequest, ReadLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub

if TYPE_CHECKING:
    from orderstream.events.v1.event_pb2 import RecordedEvent


async def read_aggregate(
    connection: Connection, request: ReadAggregateRequest, show: Callable[[RecordedEvent], None]
) -> None:
    """Call `show` for each event of an aggregate, as the request asks for them.

    Raises:
        ServerRefused: the server refused, or does not answer.
    """
    async with connected(connection, connection.command_server) as channel:
        async for chunk in EventServiceStub(channel).ReadAggregate(request, timeout=connection.timeout):
            for event in chunk.events:
                show(event)


async def read_event(connection: Connection, position: int) -> RecordedEvent:
    """The event at a position.

    Raises:
        ServerRefused: the server refused, or does not answer.
        CliError: the log has no such event.
    """
    request = ReadLogRequest(from_position=position, max_count=1)
    async with connected(connection, connection.command_server) as channel:
        async for chunk in EventServiceStub(channel).ReadLog(request, timeout=connection.timeout):
            for event in chunk.events:
                return event
    raise CliError(
        f"the log has no event {position} yet",
        hint="`orderstream events tail` shows the last ones",
        exit_code=ExitCode.NOT_FOUND,
    )
