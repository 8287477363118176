"""Many commands over one stream: in order, in flow control, resumed when the stream breaks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from orderstream.commands.v1.command_service_pb2 import Command, ExecuteCommandsRequest, ExecuteCommandsResponse
from orderstream.commands.v1.command_service_pb2_grpc import CommandServiceStub
from orderstream_client.errors import OrderstreamCallError, decode_error, decode_status
from orderstream_client.retry import RetryPolicy, is_worth_a_retry
from orderstream_client.source import Source

if TYPE_CHECKING:
    from orderstream.commands.v1.command_service_pb2 import CommandOutcome
    from orderstream.commands.v1.command_service_pb2_grpc import CommandServiceAsyncStub

MESSAGES_AHEAD = 8
"""Messages that may be unanswered: the server reads no further ahead."""

COMMANDS_IN_MESSAGE = 64

_BYTES_IN_MESSAGE = 1024 * 1024
"""A message is closed when it has reached this; servers take 4 MiB by default."""

_FIELDS = {field.message_type: field.name for field in Command.DESCRIPTOR.fields}


class CommandResult(NamedTuple):
    """What became of a command."""

    request: Any
    """The command, with its request id: the object that was given."""
    response: Any
    """The response message of its RPC; None: it was refused."""
    error: OrderstreamCallError | None
    """Why it was refused; None: it was not."""
    replayed: bool
    """The response was stored for its request id before."""
    sent: int
    """How often it was sent: more than once if the stream broke before its answer had come."""

    def unwrap(self) -> Any:
        """The response.

        Raises:
            OrderstreamCallError: the command was refused.
        """
        if self.error is not None:
            raise self.error
        return self.response


class BulkOptions(NamedTuple):
    """How a stream of commands is sent."""

    metadata: Sequence[tuple[str, str]] = ()
    """Of the call, such as ("x-actor", "importer"): goes into the events of all commands."""
    commands_in_message: int = COMMANDS_IN_MESSAGE
    """At most, 1 to 1,000."""
    messages_ahead: int = MESSAGES_AHEAD
    """Messages that may be unanswered, 1 to 8: with `commands_in_message` the bound on commands under way."""
    patience_seconds: float = 15.0
    """How long to go on trying while an outcome is asked for and none comes."""
    stall_seconds: float = 15.0
    """A stream on which an outcome is asked for and none comes for so long counts as broken."""


class _Message:
    """Some commands that were taken from the source together."""

    __slots__ = ("commands", "sent", "sent_at")

    def __init__(self, commands: Iterable[Any]) -> None:
        self.commands = deque(commands)
        """Those that have no outcome yet."""
        self.sent = 0
        """How often."""
        self.sent_at = 0.0
        """The last time, by `time.monotonic()`."""

    def encode(self) -> ExecuteCommandsRequest:
        """The message to send now."""
        self.sent += 1
        self.sent_at = time.monotonic()
        return ExecuteCommandsRequest(
            commands=[Command(**{_FIELDS[command.DESCRIPTOR]: command}) for command in self.commands]
        )


async def execute_commands(
    channel: grpc.aio.Channel,
    commands: Iterable[Any] | AsyncIterable[Any],
    *,
    retry: RetryPolicy | None = None,
    options: BulkOptions | None = None,
    on_broken: Callable[[OrderstreamCallError], None] = lambda _: None,
) -> AsyncGenerator[CommandResult, None]:
    """What `OrderstreamClient.execute` does, on a channel of one's own.

    Args:
        channel: to a command server.
        commands: what to execute.
        retry: how often it is tried while no outcome comes.
        options: how it is sent.
        on_broken: told each time that a stream broke and another one is about to follow.

    Raises:
        OrderstreamCallError: see there.
    """
    execution = _Execution(channel, commands, retry or RetryPolicy(), options or BulkOptions(), on_broken)
    async with aclosing(execution.results()) as results:
        async for result in results:
            yield result


def _prepare(command: Any) -> None:
    """See to it that a command can be sent, and sent again."""
    if getattr(command, "DESCRIPTOR", None) not in _FIELDS:
        raise TypeError(f"{type(command).__name__} is no request message of a command")
    if not command.request_id:
        command.request_id = str(uuid.uuid4())


class _Execution:
    """One execution of a sequence of commands, over as many streams as it takes."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        commands: Iterable[Any] | AsyncIterable[Any],
        retry: RetryPolicy,
        options: BulkOptions,
        on_broken: Callable[[OrderstreamCallError], None],
    ) -> None:
        self._stub: CommandServiceAsyncStub = CommandServiceStub(channel)
        self._source = Source(commands, _prepare, options.commands_in_message, _BYTES_IN_MESSAGE)
        self._retry = retry
        self._options = options
        self._on_broken = on_broken
        self._waiting: deque[_Message] = deque()
        """What was taken from the source and has no outcomes, in order."""
        self._room = asyncio.Semaphore(options.messages_ahead)
        self._asked_at = 0.0
        """Since when an outcome is asked for and none has come."""

    async def results(self) -> AsyncGenerator[CommandResult, None]:
        """The results, in the order of the commands."""
        attempts = 0
        self._asked_at = time.monotonic()
        try:
            # A stream is opened when there is something to send: a server that is away while the source rests is
            # nobody's business.
            while await self._has_something():
                try:
                    async with aclosing(self._stream()) as stream:
                        async for result in stream:
                            attempts = 0
                            yield result
                            self._asked_at = time.monotonic()
                except grpc.aio.AioRpcError as failure:
                    attempts += 1
                    await self._pause(failure, attempts)
            self._source.check()
        finally:
            await self._source.close()

    async def _has_something(self) -> bool:
        """Take something to send if nothing waits already; False when there is nothing more."""
        if not self._waiting:
            commands = await self._source.take()
            if not commands:
                return False
            await self._room.acquire()
            self._waiting.append(_Message(commands))
            self._asked_at = time.monotonic()
        return True

    async def _stream(self) -> AsyncGenerator[CommandResult, None]:
        """Send over one stream until everything has its outcome, first what waits.

        Raises:
            AioRpcError: it broke.
        """
        call = self._stub.ExecuteCommands(metadata=self._options.metadata)
        sending = asyncio.create_task(self._send(call))
        try:
            while (answer := await self._read(call)) is not None:
                for outcome in answer.outcomes:
                    yield self._result(outcome)
            if self._waiting:
                raise _failure(grpc.StatusCode.UNAVAILABLE, "the server ended the stream before all was answered")
        finally:
            sending.cancel()
            call.cancel()
            await asyncio.wait([sending])

    async def _send(self, call: Any) -> None:
        try:
            for message in list(self._waiting):
                await call.write(message.encode())
            while await self._take():
                await call.write(self._waiting[-1].encode())
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The stream has ended, and whoever reads is told how: as a rule with the server's reason, but sometimes
            # grpc puts its own INTERNAL in its place (https://github.com/grpc/grpc/issues/36066). That is no reason of
            # the contract, so another stream follows, which hears the server's again.
            return

    async def _take(self) -> bool:
        """Take the next message from the source, once no more than allowed are unanswered; False at the end."""
        await self._room.acquire()
        commands: Sequence[Any] = ()
        try:
            commands = await self._source.take()
        finally:
            if not commands:
                self._room.release()
        if commands:
            self._waiting.append(_Message(commands))
        return bool(commands)

    async def _read(self, call: Any) -> ExecuteCommandsResponse | None:
        """The next answer; None at the end of the stream."""
        stall = self._options.stall_seconds
        reading = asyncio.ensure_future(call.read())
        try:
            while not reading.done():
                now = time.monotonic()
                # While nothing is unanswered there is nothing to wait for: the source rests.
                since = max(self._asked_at, self._waiting[0].sent_at) if self._waiting else now
                if now >= since + stall:
                    raise _failure(grpc.StatusCode.DEADLINE_EXCEEDED, f"no outcome for {stall:g} seconds")
                await asyncio.wait([reading], timeout=since + stall - now)
            answer = reading.result()
            return None if answer is grpc.aio.EOF else answer
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])

    def _result(self, outcome: CommandOutcome) -> CommandResult:
        """The result of the first command that waits."""
        if not self._waiting:
            raise OrderstreamCallError(grpc.StatusCode.INTERNAL, "there are more outcomes than commands")
        message = self._waiting[0]
        command, sent = message.commands.popleft(), message.sent
        if not message.commands:
            self._waiting.popleft()
            self._room.release()
        kind = outcome.WhichOneof("outcome")
        if kind == _FIELDS[command.DESCRIPTOR]:
            return CommandResult(command, getattr(outcome, kind), None, outcome.replayed, sent)
        if kind == "error":
            error = decode_status(outcome.error.SerializeToString())
        else:
            error = OrderstreamCallError(grpc.StatusCode.INTERNAL, f"the outcome is that of another command: {kind}")
        return CommandResult(command, None, error, False, sent)

    async def _pause(self, failure: grpc.aio.AioRpcError, attempts: int) -> None:
        """A stream broke: wait before the next one.

        Raises:
            OrderstreamCallError: another one would not help, or enough were tried.
        """
        error = decode_error(failure)
        # No deadline is ours: either nothing came, or something between us and the server has one.
        worth_it = is_worth_a_retry(error) or error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        pause = self._retry.backoff_seconds(attempts, error)
        out_of_time = time.monotonic() + pause >= self._asked_at + self._options.patience_seconds
        if not worth_it or out_of_time or attempts >= self._retry.max_attempts:
            raise error from failure
        self._on_broken(error)
        await asyncio.sleep(pause)


def _failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)
