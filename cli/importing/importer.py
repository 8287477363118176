"""Sends a file's purchases as commands, many at a time, through restarts of the server, safe to repeat."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from cli.failures import Unavailable
from cli.importing.report import ImportReport, Refusal, Tally
from cli.importing.requests import create_order, is_same_customer, is_same_order, register_customer
from cli.importing.rows import BadRow, Purchase
from cli.importing.spilling_map import SpillingMap
from cqrs.tokens import ConsistencyToken, encode_token
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, ReadAggregateRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream_client import (
    BulkOptions,
    CommandResult,
    OrderstreamCallError,
    RetryPolicy,
    decode_error,
    execute_commands,
)
from orderstream_client.retry import is_worth_a_retry

if TYPE_CHECKING:
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceAsyncStub

DEFAULT_IN_FLIGHT = 512
"""Commands."""

_CALL_SECONDS = 15.0
"""How long one call, or the next outcome of a stream, may take before it counts as lost."""

_LONGEST_PAUSE_SECONDS = 2.0

_ROWS_HELD = 8
"""Rows per command in flight that may wait for their customer's registration: the others need not wait for them."""

_LOOK_UPS = 64
"""Aggregates that are read at a time, to compare them with rows that are there already."""


class _Sent(NamedTuple):
    """A command that was handed to the stream."""

    row: Purchase
    registers: bool
    """It registers the row's customer; else it creates the row's order."""


class Importer:
    """Imports purchases through the public commands: bulk streams, each customer before their orders.

    Args:
        channel: to the command server.
        report: is kept up to date while the import runs.
        in_flight: how many commands may wait for their outcome at a time.
        patience_seconds: how long to go on trying while no command at all succeeds.
        on_row: called when a row is done with, one way or another.
        on_refusal: called for each row that is refused, as it happens.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        report: ImportReport,
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        patience_seconds: float = 60.0,
        on_row: Callable[[], None] = lambda: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        self.report = report
        self._channel = channel
        self._events: EventServiceAsyncStub = EventServiceStub(channel)
        ahead = BulkOptions().messages_ahead
        self._options = BulkOptions(
            commands_in_message=math.ceil(in_flight / ahead),
            messages_ahead=min(in_flight, ahead),
            patience_seconds=patience_seconds,
            stall_seconds=_CALL_SECONDS,
        )
        self._most_held = in_flight * _ROWS_HELD
        self._patience_seconds = patience_seconds
        self._on_row = on_row
        self._on_refusal = on_refusal
        self._last_success = 0.0
        self._log_position = 0
        """Where the log ended before the first command: what is behind it was not there before."""
        self._customers = SpillingMap()
        """1 for a customer that is registered now, 0 for one that was refused. Open while `run` runs."""
        self._held: dict[str, list[Purchase]] = {}
        """The rows of customers of whom it is not known yet."""
        self._held_rows = 0
        self._ready: deque[Purchase] = deque()
        """Rows whose customer has been registered since they were read."""
        self._settled = asyncio.Event()
        """Set when something has become known of a customer."""
        self._sent: deque[_Sent] = deque()
        """What waits for its outcome, in order."""
        self._look_ups = asyncio.Semaphore(_LOOK_UPS)

    async def run(self, rows: Iterable[Purchase | BadRow]) -> None:
        """Import `rows`; bad ones are reported and skipped.

        Raises:
            Unavailable: the server stayed away, or overloaded, for longer than the patience.
            OrderstreamCallError: the server does not take such commands at all.
        """
        self.report.started = self._last_success = time.monotonic()
        try:
            await self._look_at_log()
            async with asyncio.TaskGroup() as tasks:
                results = execute_commands(
                    self._channel,
                    self._commands(rows),
                    retry=RetryPolicy(max_attempts=sys.maxsize),
                    options=self._options,
                    on_broken=self._stream_broke,
                )
                async with aclosing(results):
                    async for result in results:
                        await self._outcome(result, tasks)
        except BaseExceptionGroup as group:
            # The first is the cause: the group has cancelled the others for its sake.
            cause = group.exceptions[0]
            if isinstance(cause, OrderstreamCallError) and _is_worth_a_retry(cause):
                raise self._out_of_patience(cause) from cause
            raise cause from group
        finally:
            self._customers.close()
            self.report.seconds = time.monotonic() - self.report.started

    async def _commands(self, rows: Iterable[Purchase | BadRow]) -> AsyncIterator[Any]:
        """The commands for all rows. An order follows when its customer is known to be registered."""
        for row in rows:
            if isinstance(row, BadRow):
                self._refuse(self.report.orders, Refusal(row.line, "row", "BAD_ROW", row.why))
                self._on_row()
                continue
            registered = self._customers.get(row.customer)
            if registered == 1:
                yield self._create(row)
            elif registered == 0:
                self._refuse_for_customer(row)
            else:
                self._held_rows += 1
                others = self._held.setdefault(row.customer, [])
                others.append(row)
                if len(others) == 1:
                    yield self._register(row)
            async for released in self._released(until_held=self._most_held):
                yield self._create(released)
        async for released in self._released(until_held=0):
            yield self._create(released)

    async def _released(self, until_held: int) -> AsyncIterator[Purchase]:
        """Rows whose customer has been registered; waits for more until no more than so many are held."""
        while self._ready or self._held_rows > until_held:
            if self._ready:
                yield self._ready.popleft()
            else:
                self._settled.clear()
                await self._settled.wait()

    def _create(self, row: Purchase) -> Any:
        self._sent.append(_Sent(row, registers=False))
        return create_order(row)

    def _register(self, row: Purchase) -> Any:
        self._sent.append(_Sent(row, registers=True))
        return register_customer(row)

    async def _outcome(self, result: CommandResult, tasks: asyncio.TaskGroup) -> None:
        """Count what became of the command that was sent first of those that wait."""
        sent = self._sent.popleft()
        self._last_success = time.monotonic()
        error = result.error
        if error is None:
            position = self.report.saw_token(result.response.consistency_token).position
            # A replay after a lost answer may be of our own command: then its event was not in the log when we began.
            was_there = result.replayed and (result.sent == 1 or position <= self._log_position)
            self._done(sent, "already_there" if was_there else "imported")
        elif error.code is grpc.StatusCode.ALREADY_EXISTS:
            await self._look_ups.acquire()
            tasks.create_task(self._look_up(sent, result.request, error))
        else:
            self._refused(sent, result.request, error)

    async def _look_up(self, sent: _Sent, request: Any, error: OrderstreamCallError) -> None:
        """The id is taken: it may be by the very thing that the row stands for."""
        try:
            if sent.registers:
                is_there = await self._is_there(request.customer_id, lambda event: is_same_customer(event, request))
            else:
                is_there = await self._is_there(request.order_id, lambda event: is_same_order(event, request))
        finally:
            self._look_ups.release()
        if is_there:
            self._done(sent, "already_there")
        else:
            self._refused(sent, request, error)

    def _done(self, sent: _Sent, how: str) -> None:
        """The effect of a command is in the log now. `how` is the field of a Tally."""
        tally = self.report.customers if sent.registers else self.report.orders
        setattr(tally, how, getattr(tally, how) + 1)
        if sent.registers:
            self._settle(sent.row.customer, registered=True)
        else:
            self.report.nanos += sent.row.nanos
            self._on_row()

    def _refused(self, sent: _Sent, request: Any, error: OrderstreamCallError) -> None:
        tally = self.report.customers if sent.registers else self.report.orders
        subject = f"customer {request.customer_id}" if sent.registers else f"order {request.order_id}"
        self._refuse(tally, Refusal(sent.row.line, subject, error.reason or error.code.name, error.message))
        if sent.registers:
            self._settle(sent.row.customer, registered=False)
        else:
            self._on_row()

    def _settle(self, customer: str, *, registered: bool) -> None:
        """It is known whether a customer is registered: their rows need not wait any more."""
        self._customers.put(customer, int(registered))
        rows = self._held.pop(customer)
        self._held_rows -= len(rows)
        if registered:
            self._ready.extend(rows)
        else:
            for row in rows:
                self._refuse_for_customer(row)
        self._settled.set()

    def _refuse_for_customer(self, row: Purchase) -> None:
        request = create_order(row)
        why = f"its customer {request.customer_id} was refused"
        self._refuse(self.report.orders, Refusal(row.line, f"order {request.order_id}", "CUSTOMER_REFUSED", why))
        self._on_row()

    def _refuse(self, tally: Tally, refusal: Refusal) -> None:
        self.report.refuse(tally, refusal)
        self._on_refusal(refusal)

    async def _look_at_log(self) -> None:
        """Note where the log ends."""
        for attempts in itertools.count(1):
            try:
                log = await self._events.DescribeLog(DescribeLogRequest(), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as failure:
                await self._pause(failure, attempts)
            else:
                self._log_position = log.position
                self.report.saw_token(encode_token(ConsistencyToken(log.epoch, log.position)))
                return

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
                await self._pause(failure, attempts)
        return False

    async def _pause(self, failure: grpc.aio.AioRpcError, attempts: int) -> None:
        """A call failed: wait before the next attempt.

        Raises:
            OrderstreamCallError: another attempt would not change that.
            Unavailable: nothing succeeded for longer than the patience.
        """
        error = decode_error(failure)
        if not _is_worth_a_retry(error):
            raise error from failure
        if time.monotonic() - self._last_success > self._patience_seconds:
            raise self._out_of_patience(error) from error
        self.report.retries += 1
        longest = min(_LONGEST_PAUSE_SECONDS, 0.05 * 2**attempts)
        # Jitter: the calls in flight failed together, and should not come back together.
        await asyncio.sleep(max(error.retry_after or 0.0, longest * (0.5 + random() / 2)))

    def _stream_broke(self, _error: OrderstreamCallError) -> None:
        self.report.retries += 1

    def _out_of_patience(self, error: OrderstreamCallError) -> Unavailable:
        return Unavailable(
            f"no command has succeeded for {self._patience_seconds:g} seconds; the last answer was "
            f"{error.reason or error.code.name}: {error.message}",
            hint="run the same import again once the command server is up: what is done stays done",
        )


def _is_worth_a_retry(error: OrderstreamCallError) -> bool:
    """Whether to send it again. With a request id, a command whose answer is late or lost takes effect once as well."""
    return is_worth_a_retry(error) or error.code is grpc.StatusCode.DEADLINE_EXCEEDED
