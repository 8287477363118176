"""The client: the services' stubs, with request ids, retries and consistency tokens."""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc.aio

from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub
from orderstream.customers.v1.queries_pb2_grpc import CustomerQueryServiceStub
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub
from orderstream.sales.v1.queries_pb2_grpc import SalesQueryServiceStub
from orderstream_client.bulk import BulkOptions, CommandResult, execute_commands
from orderstream_client.errors import decode_error
from orderstream_client.retry import RetryPolicy, is_worth_a_retry


class Command(Protocol):
    """A request message of a command."""

    request_id: str


class Query(Protocol):
    """A request message of a query."""

    consistency_token: str


class Answer(Protocol):
    """A response message of a command or a query."""

    @property
    def consistency_token(self) -> str:
        """Up to where the answer has seen the log."""


CommandT = TypeVar("CommandT", bound=Command)
QueryT = TypeVar("QueryT", bound=Query)
AnswerT = TypeVar("AnswerT", bound=Answer)


class OrderstreamClient:
    """Sends commands that take effect once and queries that see what this client has done before.

    The stubs are attributes: `orders`, `customers`, `events` on the command server, `order_queries`,
    `customer_queries`, `sales` on the query server.
    """

    def __init__(
        self,
        command_channel: grpc.aio.Channel,
        query_channel: grpc.aio.Channel,
        *,
        retry: RetryPolicy | None = None,
        timeout_seconds: float = 15.0,
    ) -> None:
        """Make a client; the channels stay the caller's until `close`.

        Args:
            command_channel: from `connect`, to a command server.
            query_channel: from `connect`, to a query server.
            retry: how often and how long a call is tried.
            timeout_seconds: how long a call may take, with all its attempts.
        """
        self._channels = (command_channel, query_channel)
        self._retry = retry or RetryPolicy()
        self._timeout_seconds = timeout_seconds
        self.orders = OrderCommandServiceStub(command_channel)
        self.customers = CustomerCommandServiceStub(command_channel)
        self.events = EventServiceStub(command_channel)
        self.order_queries = OrderQueryServiceStub(query_channel)
        self.customer_queries = CustomerQueryServiceStub(query_channel)
        self.sales = SalesQueryServiceStub(query_channel)
        self.token = ""
        """The consistency token of the last answer. Queries that carry none get it. (Of calls that run at the same
        time, the last to be answered sets it: to be sure to see a certain command, give the query that command's own
        token.)"""

    async def command(self, method: grpc.aio.UnaryUnaryMultiCallable[CommandT, AnswerT], request: CommandT) -> AnswerT:
        """Send a command until it is answered. It takes effect once, however often it had to be sent.

        A request without a `request_id` is given one, in place: sending the same message object again is the same
        command.

        Raises:
            OrderstreamCallError: the server's answer is an error which a retry does not change, or retries were used
            up.
        """
        if not request.request_id:
            request.request_id = str(uuid.uuid4())
        return await self._call(method, request)

    async def query(self, method: grpc.aio.UnaryUnaryMultiCallable[QueryT, AnswerT], request: QueryT) -> AnswerT:
        """Send a query. One without a consistency token is sent with the client's; the message object stays as it is.

        Raises:
            OrderstreamCallError: as for `command`. HISTORY_CHANGED also makes the client forget its token.
        """
        if request.consistency_token or not self.token:
            return await self._call(method, request)
        with_token = copy.deepcopy(request)
        with_token.consistency_token = self.token
        return await self._call(method, with_token)

    async def execute(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        *,
        options: BulkOptions | None = None,
    ) -> AsyncGenerator[CommandResult, None]:
        """Execute many commands, several times as many a second as by `command`; yields a result for each, in order.

            async for result in client.execute(CreateOrderRequest(…) for row in rows):
                if result.error is not None:
                    print(result.request.order_id, result.error.reason)

        They take effect in their order, each once, and none changes what becomes of the others. A command that is
        refused is a result with an `error`; it does not raise.

        `commands` are request messages of any command RPCs, mixed as you like. It is read as results are taken: no more
        than `options.messages_ahead` × `options.commands_in_message` (512) commands are without a result at a time,
        and those are what is kept in memory. Of an asynchronous iterable, what has come is sent without waiting for
        more. A command without a `request_id` is given one, in place.

        When the stream breaks, or the server restarts or has too much to do, another stream is opened and what has no
        result yet is sent again under the same request ids. (A command that was refused just before its answer was lost
        is decided again, then: refusals are not stored.)

        Leave the loop early by way of `contextlib.aclosing`, or the stream stays open until the garbage collector finds
        it. What was sent by then may take effect.

        Args:
            commands: what to execute. What it raises is raised here, after the results of what came before.
            options: sizes, call metadata, patience; by default the patience is the client's `timeout_seconds`.

        Raises:
            OrderstreamCallError: the stream ended with an error that a retry does not change, or retries were used up
                while no result came. Commands without a result may have taken effect: execute them again.
            TypeError: something in `commands` is no request message of a command.
        """
        if options is None:
            options = BulkOptions(patience_seconds=self._timeout_seconds, stall_seconds=self._timeout_seconds)
        execution = execute_commands(self._channels[0], commands, retry=self._retry, options=options)
        async with aclosing(execution) as results:
            async for result in results:
                if result.response is not None:
                    self.token = result.response.consistency_token or self.token
                yield result

    async def close(self) -> None:
        """Close both channels."""
        for channel in self._channels:
            await channel.close()

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Any, AnswerT], request: Any) -> AnswerT:
        give_up_at = time.monotonic() + self._timeout_seconds
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await method(request, timeout=max(give_up_at - time.monotonic(), 0.001))
            except grpc.aio.AioRpcError as failure:
                error = decode_error(failure)
                if error.reason == "HISTORY_CHANGED":
                    self.token = ""
                pause = self._retry.backoff_seconds(attempts, error)
                out_of_time = time.monotonic() + pause >= give_up_at
                if attempts >= self._retry.max_attempts or out_of_time or not is_worth_a_retry(error):
                    raise error from failure
                await asyncio.sleep(pause)
            else:
                self.token = answer.consistency_token or self.token
                return answer
