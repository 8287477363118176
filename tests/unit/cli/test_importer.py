"""The importer against a command server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from cli.failures import Unavailable
from cli.importing import session
from cli.importing.importer import Importer
from cli.importing.report import MOST_REFUSALS, ImportReport, Refusal, Tally
from cli.importing.rows import PurchaseFile
from cqrs.ids import new_id
from cqrs.tokens import ConsistencyToken, decode_token, encode_token
from orderstream.commands.v1.command_service_pb2 import (
    Command,
    CommandOutcome,
    ExecuteCommandsRequest,
    ExecuteCommandsResponse,
)
from orderstream.commands.v1.command_service_pb2_grpc import (
    CommandServiceServicer,
    add_CommandServiceServicer_to_server,
)
from orderstream.customers.v1.events_pb2 import CustomerRegistered
from orderstream.errors.v1.errors_pb2 import Status as ErrorStatus
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.event_service_pb2 import (
    DescribeLogRequest,
    DescribeLogResponse,
    ReadAggregateRequest,
    ReadAggregateResponse,
)
from orderstream.events.v1.event_service_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server
from orderstream.orders.v1.events_pb2 import OrderCreated

ROWS = """\
00004 19970101 2 29.33
00004 19970101 1 10.00
00005 19970102 1 12.50
00006 19970103 3 40.00
"""

Trouble = Callable[[str, int], grpc.StatusCode | None]
"""From an aggregate's id and the number of the attempt to the code that it ends with; None: as it should."""


class FakeServer(CommandServiceServicer, EventServiceServicer):
    """A log in memory that knows request ids, and can lose answers after it has taken a command."""

    def __init__(self, trouble: Trouble = lambda _aggregate_id, _attempt: None, *, take_first: bool = True) -> None:
        self.epoch = new_id()
        self.events: dict[str, RecordedEvent] = {}
        self.request_ids: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.trouble = trouble
        self.take_first = take_first
        """Whether a command that meets trouble has taken effect all the same: only its answer is lost."""

    async def ExecuteCommands(
        self, requests: AsyncIterator[ExecuteCommandsRequest], context: Any
    ) -> AsyncIterator[ExecuteCommandsResponse]:
        async for request in requests:
            answer = ExecuteCommandsResponse()
            for command in request.commands:
                if command.HasField("register_customer"):
                    registered = command.register_customer
                    event: Any = CustomerRegistered(
                        customer_id=registered.customer_id,
                        name=registered.name,
                        email=registered.email,
                        occur_time=registered.occur_time,
                    )
                    outcome = await self._take(registered.customer_id, registered.request_id, event, context)
                    made: Any = outcome.register_customer
                else:
                    placed = command.create_order
                    assert placed.customer_id in self.events, "an order was sent before its customer was registered"
                    event = OrderCreated(
                        customer_id=placed.customer_id, items=placed.items, occur_time=placed.occur_time
                    )
                    outcome = await self._take(placed.order_id, placed.request_id, event, context)
                    made = outcome.create_order
                if not outcome.HasField("error"):
                    made.consistency_token = encode_token(
                        ConsistencyToken(self.epoch, self.events[event_id(command)].position)
                    )
                answer.outcomes.append(outcome)
            yield answer

    async def DescribeLog(self, request: DescribeLogRequest, context: Any) -> DescribeLogResponse:
        return DescribeLogResponse(position=len(self.events), epoch=self.epoch)

    async def ReadAggregate(
        self,
        request: ReadAggregateRequest,
        context: Any,
    ) -> AsyncIterator[ReadAggregateResponse]:
        if request.aggregate_id in self.events:
            yield ReadAggregateResponse(events=[self.events[request.aggregate_id]])

    async def _take(self, aggregate_id: str, request_id: str, message: Any, context: Any) -> CommandOutcome:
        """The outcome, without the response; or the end of the stream."""
        self.attempts[aggregate_id] = self.attempts.get(aggregate_id, 0) + 1
        code = self.trouble(aggregate_id, self.attempts[aggregate_id])
        replayed = self.request_ids.get(request_id) == aggregate_id
        if (code is None or self.take_first) and not replayed:
            if aggregate_id in self.events:
                return refused(grpc.StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS")
            event = RecordedEvent(aggregate_id=aggregate_id, position=len(self.events) + 1)
            event.data.Pack(message)
            self.events[aggregate_id] = event
            self.request_ids[request_id] = aggregate_id
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return refused(code, "INVALID_REQUEST")
        if code is not None:
            await context.abort(code, "trouble")
        return CommandOutcome(replayed=replayed)


def event_id(command: Command) -> str:
    return command.register_customer.customer_id or command.create_order.order_id


def fake_server(trouble: Trouble = lambda _aggregate_id, _attempt: None, *, take_first: bool = True) -> FakeServer:
    return FakeServer(trouble, take_first=take_first)  # type: ignore[abstract] # the importer calls no other method


def refused(code: grpc.StatusCode, reason: str) -> CommandOutcome:
    status = Status(code=code.value[0], message=reason)
    status.details.add().Pack(ErrorInfo(reason=reason, domain="orderstream"))
    return CommandOutcome(error=ErrorStatus.FromString(status.SerializeToString()))


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    add_CommandServiceServicer_to_server(fake, server)
    add_EventServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def import_rows(tmp_path: Path, fake: FakeServer, text: str = ROWS, *, patience: float = 10.0) -> ImportReport:
    file = tmp_path / "rows.txt"
    file.write_text(text)
    report = ImportReport()

    async def run() -> None:
        async with serving(fake) as channel:
            await Importer(channel, report, in_flight=4, patience_seconds=patience).run(PurchaseFile(file).rows())

    asyncio.run(run())
    return report


def test_a_second_import_changes_nothing_and_counts_everything_as_there(tmp_path: Path) -> None:
    fake = fake_server()
    first = import_rows(tmp_path, fake)
    assert (first.customers, first.orders) == (Tally(imported=3), Tally(imported=4))
    second = import_rows(tmp_path, fake)
    assert (second.customers, second.orders) == (Tally(already_there=3), Tally(already_there=4))
    assert len(fake.events) == 7
    assert first.nanos == second.nanos == 91_830_000_000
    assert decode_token(second.consistency_token).position == 7


@pytest.mark.parametrize("take_first", [True, False])
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    ],
)
def test_a_lost_answer_is_asked_for_again_and_the_row_counts_once(
    tmp_path: Path, code: grpc.StatusCode, *, take_first: bool
) -> None:
    fake = fake_server(lambda _aggregate_id, attempt: code if attempt <= 2 else None, take_first=take_first)
    report = import_rows(tmp_path, fake)
    assert (report.customers, report.orders) == (Tally(imported=3), Tally(imported=4))
    assert min(fake.attempts.values()) == 3
    assert report.retries == 14  # each of seven commands broke two streams


def test_a_lost_answer_to_a_row_that_was_there_before_counts_as_there(tmp_path: Path) -> None:
    fake = fake_server()
    import_rows(tmp_path, fake)
    fake.attempts.clear()
    fake.trouble = lambda _aggregate_id, attempt: grpc.StatusCode.UNAVAILABLE if attempt == 1 else None
    report = import_rows(tmp_path, fake)
    assert (report.customers, report.orders) == (Tally(already_there=3), Tally(already_there=4))


def test_rows_that_are_there_under_other_request_ids_count_as_there_if_they_are_the_same(tmp_path: Path) -> None:
    fake = fake_server()
    import_rows(tmp_path, fake)
    fake.request_ids.clear()
    report = import_rows(tmp_path, fake, ROWS.replace("3 40.00", "3 41.00"))
    assert (report.customers, report.orders) == (Tally(already_there=3), Tally(already_there=3, refused=1))
    assert report.refusals[0].line == 4
    assert report.refusals[0].reason == "ORDER_ALREADY_EXISTS"


def test_a_refused_customer_refuses_their_orders_only(tmp_path: Path) -> None:
    refused = grpc.StatusCode.INVALID_ARGUMENT
    fake = fake_server(
        lambda aggregate_id, _attempt: refused if aggregate_id == "cdnow-00004" else None, take_first=False
    )
    report = import_rows(tmp_path, fake)
    assert (report.customers, report.orders) == (Tally(imported=2, refused=1), Tally(imported=2, refused=2))
    assert {refusal.line for refusal in report.refusals} == {1, 2}


def test_bad_rows_are_counted_and_the_others_imported(tmp_path: Path) -> None:
    report = import_rows(tmp_path, fake_server(), ROWS + "00007 19970230 1 1.00\n00008 19970103 1 2.00\n")
    assert (report.customers, report.orders) == (Tally(imported=4), Tally(imported=5, refused=1))
    assert [(refusal.line, refusal.reason) for refusal in report.refusals] == [(5, "BAD_ROW")]


def test_an_import_gives_up_when_no_call_succeeds_for_longer_than_its_patience(tmp_path: Path) -> None:
    fake = fake_server(lambda _aggregate_id, _attempt: grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable, match=r"no command has succeeded for 0\.3 seconds"):
        import_rows(tmp_path, fake, patience=0.3)


def test_an_import_in_which_nothing_was_answered_does_not_say_that_all_is_there() -> None:
    assert "nothing was imported" in session.report_line(ImportReport())


def test_the_rate_counts_answers_and_not_rows_that_were_never_sent() -> None:
    report = ImportReport(seconds=1.0)
    for line in range(100):
        report.refuse(report.orders, Refusal(line, "row", "BAD_ROW", "not a date"))
    report.orders.imported += 1
    assert report.commands_per_second == 1.0


def test_of_very_many_refusals_all_are_counted_and_the_first_are_kept() -> None:
    report = ImportReport()
    for line in range(MOST_REFUSALS + 5):
        report.refuse(report.orders, Refusal(line, "row", "BAD_ROW", "not a date"))
    assert report.orders.refused == MOST_REFUSALS + 5
    assert [refusal.line for refusal in report.refusals] == list(range(MOST_REFUSALS))


def test_rows_of_one_customer_wait_for_the_customer_and_those_of_others_do_not_wait_for_them(tmp_path: Path) -> None:
    rows = "".join(f"{number % 50:05d} 199701{1 + number % 28:02d} 1 {1 + number}.00\n" for number in range(2000))
    report = import_rows(tmp_path, fake_server(), rows)
    assert (report.customers, report.orders) == (Tally(imported=50), Tally(imported=2000))
