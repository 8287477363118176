"""Calls to the servers, from commands that make one or a few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from cli.exit_codes import ExitCode
from cli.failures import NotUsable, ServerRefused
from cli.options import Connection
from orderstream_client import OrderstreamCallError, connect, decode_error

ResponseT = TypeVar("ResponseT")


def call(connection: Connection, target: str, send: Callable[[grpc.aio.Channel], Awaitable[ResponseT]]) -> ResponseT:
    """Connect to `target`, send one request, return its answer.

    Raises:
        ServerRefused: the answer is an error, or there is none.
    """

    async def run() -> ResponseT:
        async with connected(connection, target) as channel:
            return await send(channel)

    return asyncio.run(run())


@asynccontextmanager
async def connected(connection: Connection, target: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `target`. Errors of calls on it come out as ServerRefused."""
    channel = open_channel(connection, target)
    try:
        yield channel
    except grpc.aio.AioRpcError as failure:
        raise ServerRefused(decode_error(failure), target) from failure
    except OrderstreamCallError as error:
        raise ServerRefused(error, target) from error
    finally:
        await channel.close()


def open_channel(connection: Connection, target: str) -> grpc.aio.Channel:
    """A channel to `target`, with or without TLS.

    Raises:
        NotUsable: the TLS options do not go together, or a file cannot be read.
    """
    try:
        return connect(
            target,
            tls_server_ca=connection.tls_server_ca,
            tls_client_certificate=connection.tls_client_certificate,
            tls_client_key=connection.tls_client_key,
        )
    except (OSError, ValueError) as error:
        raise NotUsable(f"TLS: {error}") from error


def seconds(value: float) -> Duration:
    """A duration as the contract has it."""
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def send_command(
    connection: Connection,
    request_id: str,
    send: Callable[[grpc.aio.Channel], Awaitable[ResponseT]],
) -> ResponseT:
    """Send one command to the command server. When its outcome is unknown, the error tells how to repeat it safely."""
    try:
        return call(connection, connection.command_server, send)
    except ServerRefused as error:
        if error.exit_code is ExitCode.UNAVAILABLE:
            error.details = [*error.details, ("to repeat it safely, add", f"--request-id {request_id}")]
        raise
