"""ExecuteCommands in the workers: reads messages ahead of their answers, within bounds, and answers in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc.aio

from command_server.commands.bulk import BulkMethod, split_answer
from command_server.commands.call_metadata import for_events
from cqrs.errors import ShuttingDown
from cqrs.serving.deadlines import remaining_seconds
from cqrs.workers.pace import Pace
from cqrs.workers.remote import RemoteCommands
from cqrs.workers.requests import Reply

MESSAGES_AHEAD = 8
"""So many messages of a stream may be read whose answers have not been taken by gRPC, which holds one or two more."""

_ANSWER_BYTES_AHEAD = 4 * 1024 * 1024
"""Nor is the next message read while answers of more than this wait to be taken: for a client that does not read."""

_Context = grpc.aio.ServicerContext[Any, Any]


class _End(NamedTuple):
    """In the place of a message: there are no more, and why."""

    error: Exception | None
    """What the call ends with; None: the client has sent all."""


class BulkCalls:
    """All calls of ExecuteCommands of a worker."""

    def __init__(
        self, index: int, method: BulkMethod, commands: RemoteCommands, pace: Pace, draining: asyncio.Event
    ) -> None:
        """Serve `method`, which is number `index` to the main process, within `pace`, until `draining`."""
        self._index = index
        self._method = method
        self._commands = commands
        self._pace = pace
        self._draining = draining

    async def handle(self, requests: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        """The behaviour of the RPC."""
        call_metadata = for_events(context.invocation_metadata())
        stream = self._commands.open_stream()

        def execute(request: bytes) -> asyncio.Future[Reply]:
            return self._commands.execute(self._index, request, call_metadata, remaining_seconds(context), stream)

        call = _Call(self._method, self._pace, execute)
        reading = asyncio.create_task(call.read(requests))
        draining = asyncio.create_task(self._draining.wait())

        def drain(_: object) -> None:
            reading.cancel()
            call.end(ShuttingDown())

        draining.add_done_callback(drain)
        try:
            async with aclosing(call.answers()) as answers:
                async for part in answers:
                    yield part
        finally:
            draining.remove_done_callback(drain)
            draining.cancel()
            reading.cancel()
            self._commands.close_stream(stream)


class _Call:
    def __init__(self, method: BulkMethod, pace: Pace, execute: Callable[[bytes], asyncio.Future[Reply]]) -> None:
        self._method = method
        self._pace = pace
        self._execute = execute
        self._room = asyncio.Semaphore(MESSAGES_AHEAD)
        self._sent: asyncio.Queue[asyncio.Future[Reply] | _End] = asyncio.Queue()
        self._waiting_bytes = 0
        self._taken = asyncio.Event()

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Read and execute messages, as far ahead as is allowed, until the client has sent all or this is cancelled."""
        try:
            while True:
                await self._room.acquire()
                while self._waiting_bytes > _ANSWER_BYTES_AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
                request = await anext(requests, None)
                if request is None:
                    break
                await self._pace.enter(self._method.count(request), len(request))
                self._sent.put_nowait(self._send(request))
        except Exception as error:  # noqa: BLE001 - the call ends with it
            self.end(error)
        else:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Nothing is read any more: the call ends when what was read is answered."""
        self._sent.put_nowait(_End(error))

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """The answers, in order."""
        while not isinstance(sent := await self._sent.get(), _End):
            # Shielded: the request is under way, and in the pace's account, until it is answered and not until somebody
            # ceases to wait.
            response = (await asyncio.shield(sent)).response
            for part in split_answer(response):
                yield part
            self._waiting_bytes -= len(response)
            self._taken.set()
            self._room.release()
        if sent.error is not None:
            raise sent.error

    def _send(self, request: bytes) -> asyncio.Future[Reply]:
        commands, size_bytes = self._method.count(request), len(request)
        answer = self._execute(request)

        def answered(future: asyncio.Future[Reply]) -> None:
            self._pace.leave(commands, size_bytes)
            # Asked for, or asyncio would report an error that nobody waits for any more.
            if future.exception() is None:
                self._waiting_bytes += len(future.result().response)

        answer.add_done_callback(answered)
        return answer
