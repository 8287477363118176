"""Sends a file's purchases as commands, many at a time, through restarts of the server, safe to repeat."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from random import random
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import grpc
import grpc.aio

from cli.failures import Unavailable
from cli.importing.report import ImportReport, Refusal, Tally
from cli.importing.requests import create_order, is_same_customer, is_same_order, register_customer
from cli.importing.rows import BadRow, Purchase
from cqrs.tokens import ConsistencyToken, encode_token
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, RegisterCustomerResponse
from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, DescribeLogResponse, ReadAggregateRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest, CreateOrderResponse
from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from orderstream_client import OrderstreamCallError, decode_error
from orderstream_client.retry import is_worth_a_retry

if TYPE_CHECKING:
    from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceAsyncStub
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceAsyncStub

REPLAYED_KEY = "x-idempotent-replayed"
"""Trailing metadata of an answer that was stored for its request id before."""

_CALL_SECONDS = 15.0
"""How long one call may take before it counts as lost."""

_LONGEST_PAUSE_SECONDS = 2.0

_ROWS_AHEAD = 4
"""Rows that are prepared per call in flight: those that wait for their customer do not hold up the others."""

RequestT = TypeVar("RequestT", RegisterCustomerRequest, CreateOrderRequest, DescribeLogRequest)
ResponseT = TypeVar("ResponseT", RegisterCustomerResponse, CreateOrderResponse, DescribeLogResponse)
CommandRequestT = TypeVar("CommandRequestT", RegisterCustomerRequest, CreateOrderRequest)
CommandResponseT = TypeVar("CommandResponseT", RegisterCustomerResponse, CreateOrderResponse)


class _Answer(NamedTuple, Generic[ResponseT]):
    response: ResponseT
    replayed: bool
    """It was stored for the request id before."""
    attempts: int


class Importer:
    """Imports purchases through the public commands.

    Args:
        channel: to the command server.
        report: is kept up to date while the import runs.
        in_flight: how many calls may wait for their answer at a time.
        patience_seconds: how long to go on trying while no call at all succeeds.
        on_row: called when a row is done with, one way or another.
        on_refusal: called for each row that is refused, as it happens.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        report: ImportReport,
        *,
        in_flight: int = 64,
        patience_seconds: float = 60.0,
        on_row: Callable[[], None] = lambda: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        self.report = report
        self._customers: CustomerCommandServiceAsyncStub = CustomerCommandServiceStub(channel)
        self._orders: OrderCommandServiceAsyncStub = OrderCommandServiceStub(channel)
        self._events: EventServiceAsyncStub = EventServiceStub(channel)
        self._in_flight = asyncio.Semaphore(in_flight)
        self._admitted = asyncio.Semaphore(in_flight * _ROWS_AHEAD)
        self._patience_seconds = patience_seconds
        self._on_row = on_row
        self._on_refusal = on_refusal
        self._last_success = 0.0
        self._log_position = 0
        """Where the log ended before the first command: what is behind it was not there before."""
        self._registered: dict[str, asyncio.Task[bool]] = {}

    async def run(self, rows: Iterable[Purchase | BadRow]) -> None:
        """Import `rows`; bad ones are reported and skipped.

        Raises:
            Unavailable: the server stayed away, or overloaded, for longer than the patience.
        """
        self.report.started = self._last_success = time.monotonic()
        try:
            log = (
                await self._call(lambda: self._events.DescribeLog(DescribeLogRequest(), timeout=_CALL_SECONDS))
            ).response
            self._log_position = log.position
            self.report.saw_token(encode_token(ConsistencyToken(log.epoch, log.position)))
            async with asyncio.TaskGroup() as tasks:
                for row in rows:
                    if isinstance(row, BadRow):
                        self._refuse(self.report.orders, Refusal(row.line, "row", "BAD_ROW", row.why))
                        self._on_row()
                        continue
                    await self._admitted.acquire()
                    registered = self._registered.get(row.customer)
                    if registered is None:
                        registered = tasks.create_task(self._register(row))
                        self._registered[row.customer] = registered
                    tasks.create_task(self._place(row, registered))
        except BaseExceptionGroup as group:
            # The first is the cause: the group has cancelled the other rows for its sake.
            raise group.exceptions[0] from group
        finally:
            self.report.seconds = time.monotonic() - self.report.started

    async def _register(self, row: Purchase) -> bool:
        """Register the row's customer; whether they are registered now."""
        request = register_customer(row)
        return await self._command(
            lambda: self._customers.RegisterCustomer(request, timeout=_CALL_SECONDS),
            row.line,
            f"customer {request.customer_id}",
            self.report.customers,
            lambda: self._is_there(request.customer_id, lambda event: is_same_customer(event, request)),
        )

    async def _place(self, row: Purchase, registered: asyncio.Task[bool]) -> None:
        try:
            request = create_order(row)
            subject = f"order {request.order_id}"
            if not await asyncio.shield(registered):
                self._refuse(
                    self.report.orders,
                    Refusal(row.line, subject, "CUSTOMER_REFUSED", f"its customer {request.customer_id} was refused"),
                )
                return
            placed = await self._command(
                lambda: self._orders.CreateOrder(request, timeout=_CALL_SECONDS),
                row.line,
                subject,
                self.report.orders,
                lambda: self._is_there(request.order_id, lambda event: is_same_order(event, request)),
            )
            if placed:
                self.report.nanos += row.nanos
        finally:
            self._admitted.release()
            self._on_row()

    async def _command(
        self,
        send: Callable[[], grpc.aio.UnaryUnaryCall[CommandRequestT, CommandResponseT]],
        line: int,
        subject: str,
        tally: Tally,
        is_there: Callable[[], Awaitable[bool]],
    ) -> bool:
        """Send one command and count its outcome; whether its effect is in the log now."""
        async with self._in_flight:
            try:
                answer = await self._call(send)
            except OrderstreamCallError as error:
                if error.code is not grpc.StatusCode.ALREADY_EXISTS or not await is_there():
                    self._refuse(tally, Refusal(line, subject, error.reason or error.code.name, error.message))
                    return False
                tally.already_there += 1
                return True
        position = self.report.saw_token(answer.response.consistency_token).position
        # A replay after a lost answer may be of our own command: then its event was not in the log when we began.
        if answer.replayed and (answer.attempts == 1 or position <= self._log_position):
            tally.already_there += 1
        else:
            tally.imported += 1
        return True

    async def _call(self, send: Callable[[], grpc.aio.UnaryUnaryCall[RequestT, ResponseT]]) -> _Answer[ResponseT]:
        """Make a call, again and again while the server is away or overloaded.

        Raises:
            OrderstreamCallError: the server's answer is an error that another attempt would not change.
            Unavailable: no call succeeded for longer than the patience.
        """
        attempts = 0
        while True:
            attempts += 1
            call = send()
            try:
                response = await call
                trailers = await call.trailing_metadata()
            except grpc.aio.AioRpcError as failure:
                error = decode_error(failure)
                if not _is_worth_a_retry(error):
                    self._last_success = time.monotonic()
                    raise error from failure
                await self._pause(error, attempts)
            else:
                self._last_success = time.monotonic()
                return _Answer(
                    response, any(key == REPLAYED_KEY and value == "true" for key, value in trailers), attempts
                )

    async def _pause(self, error: OrderstreamCallError, attempts: int) -> None:
        if time.monotonic() - self._last_success > self._patience_seconds:
            raise Unavailable(
                f"no command has succeeded for {self._patience_seconds:g} seconds; the last answer was "
                f"{error.reason or error.code.name}: {error.message}",
                hint="run the same import again once the command server is up: what is done stays done",
            ) from error
        self.report.retries += 1
        longest = min(_LONGEST_PAUSE_SECONDS, 0.05 * 2**attempts)
        # Jitter: the calls in flight failed together, and should not come back together.
        await asyncio.sleep(max(error.retry_after or 0.0, longest * (0.5 + random() / 2)))

    async def _is_there(self, aggregate_id: str, is_same: Callable[[RecordedEvent], bool]) -> bool:
        """Whether the aggregate began with the very event that the command would make."""
        request = ReadAggregateRequest(aggregate_id=aggregate_id, from_version=1, max_count=1)
        for attempts in itertools.count(1):
            try:
                async for chunk in self._events.ReadAggregate(request, timeout=_CALL_SECONDS):
                    for event in chunk.events:
                        return is_same(event)
                break
            except grpc.aio.AioRpcError as failure:
                error = decode_error(failure)
                if not _is_worth_a_retry(error):
                    raise error from failure
                await self._pause(error, attempts)
        return False

    def _refuse(self, tally: Tally, refusal: Refusal) -> None:
        tally.refused += 1
        self.report.refusals.append(refusal)
        self._on_refusal(refusal)


def _is_worth_a_retry(error: OrderstreamCallError) -> bool:
    """Whether to send the call again. With a request id, one whose answer is late or lost takes effect once as well."""
    return is_worth_a_retry(error) or error.code is grpc.StatusCode.DEADLINE_EXCEEDED
