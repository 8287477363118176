"""ExecuteCommands: what becomes of each command."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status

from domain.order import CONFIRMED, DELIVERED, PAID
from orderstream.commands.v1.command_service_pb2 import (
    Command,
    CommandOutcome,
    ExecuteCommandsRequest,
    ExecuteCommandsResponse,
)
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, UpdateCustomerRequest
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    CancelOrderRequest,
    ChangeShippingAddressRequest,
    CreateOrderRequest,
    RemoveOrderItemRequest,
    UpdateOrderStatusRequest,
)
from orderstream.orders.v1.order_pb2 import Address, OrderItem
from orderstream.types.v1.money_pb2 import Money
from orderstream_client.errors import decode_error
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.logs import assert_one_gapless_chain

HOME = Address(recipient="Ada", lines=["1 Main St"], city="London", country_code="GB")
LIMIT = 1_048_576


def message(*commands: Any) -> ExecuteCommandsRequest:
    """Commands by their fields' values: the type of each tells the field."""
    fields = {field.message_type: field.name for field in Command.DESCRIPTOR.fields}
    return ExecuteCommandsRequest(commands=[Command(**{fields[command.DESCRIPTOR]: command}) for command in commands])


def status(order_id: str, wanted: Any, **fields: Any) -> UpdateOrderStatusRequest:
    return UpdateOrderStatusRequest(order_id=order_id, status=wanted, **fields)


async def send(server: CommandServer, *messages: ExecuteCommandsRequest, **options: Any) -> list[CommandOutcome]:
    outcomes = []
    async for answer in server.bulk.ExecuteCommands(iter(messages), **options):
        outcomes.extend(answer.outcomes)
    return outcomes


def kinds(outcomes: Sequence[CommandOutcome]) -> list[str]:
    """What each outcome is; an error by its reason."""
    return [
        each.error.message.partition(":")[0] if each.HasField("error") else str(each.WhichOneof("outcome"))
        for each in outcomes
    ]


def test_each_command_has_its_own_outcome_in_order_and_refused_ones_leave_the_others_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            outcomes = await send(
                server,
                message(
                    RegisterCustomerRequest(customer_id="c-1", name="Ada", email="ada@example.com"),
                    order("o-1"),
                    order("o-1"),
                    CreateOrderRequest(order_id="o-2"),
                    order("o-3", customer_id="nobody"),
                ),
                message(order("o-4"), CancelOrderRequest(order_id="o-9", reason="lost"), order("o-5")),
            )
            assert kinds(outcomes) == [
                "register_customer", "create_order", "ORDER_ALREADY_EXISTS", "INVALID_REQUEST",
                "CUSTOMER_NOT_REGISTERED", "create_order", "ORDER_NOT_FOUND", "create_order",
            ]  # fmt: skip
            log = await server.read_log()
            assert [event.aggregate_id for event in log] == ["c-1", "o-1", "o-4", "o-5"]
            assert_one_gapless_chain(log)

    run(scenario)


def test_later_commands_of_a_message_see_what_earlier_ones_did_and_every_kind_of_command_can_be_sent(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        price = Money(currency_code="USD", units=3)
        async with command_server(tmp_path) as server:
            outcomes = await send(
                server,
                message(
                    RegisterCustomerRequest(customer_id="c-1", name="Ada", email="ada@example.com"),
                    UpdateCustomerRequest(customer_id="c-1", name="Ada L."),
                    order("o-1"),
                    AddOrderItemRequest(
                        order_id="o-1", item=OrderItem(sku="pen", name="A pen", quantity=1, unit_price=price)
                    ),
                    RemoveOrderItemRequest(order_id="o-1", sku="book"),
                    ChangeShippingAddressRequest(order_id="o-1", shipping_address=HOME),
                    status("o-1", CONFIRMED, expected_version=4),
                    status("o-1", PAID),
                    order("o-2"),
                    CancelOrderRequest(order_id="o-2", reason="a mistake"),
                ),
            )
            assert kinds(outcomes) == [
                "register_customer", "update_customer", "create_order", "add_order_item", "remove_order_item",
                "change_shipping_address", "update_order_status", "update_order_status", "create_order", "cancel_order",
            ]  # fmt: skip
            paid = outcomes[7].update_order_status
            assert (paid.version, paid.order.status, [item.sku for item in paid.order.items]) == (6, PAID, ["pen"])
            assert len(await server.read_log()) == 10

    run(scenario)


def test_the_same_message_again_is_answered_with_the_same_bytes_and_says_so_and_by_a_call_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            commands = message(
                order(request_id="r-1"),  # the server makes the id
                order("o-2", request_id="r-2"),
                status("o-2", CONFIRMED, request_id="r-3"),
                status("o-2", CONFIRMED, request_id="r-4"),  # changes nothing, and is stored all the same
            )
            first = await send(server, commands)
            again = await send(server, commands, commands)
            assert not any(outcome.replayed for outcome in first)
            assert all(outcome.replayed for outcome in again)
            for outcome in again:
                outcome.replayed = False
            assert [each.SerializeToString() for each in again] == [each.SerializeToString() for each in first] * 2
            assert len(await server.read_log()) == 4
            raw: Any = server.channel.unary_unary("/orderstream.orders.v1.OrderCommandService/CreateOrder")
            assert await raw(order(request_id="r-1").SerializeToString()) == first[0].create_order.SerializeToString()

    run(scenario)


def test_a_request_id_with_another_payload_is_refused_in_its_outcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(order("o-0", request_id="of a call"))
            outcomes = await send(
                server,
                message(
                    order("o-1", request_id="r-1"),
                    order("o-2", request_id="r-1"),
                    order("o-3", request_id="of a call"),
                    order("o-4", request_id="r-4"),
                ),
            )
            assert kinds(outcomes) == ["create_order", "REQUEST_ID_REUSED", "REQUEST_ID_REUSED", "create_order"]
            assert outcomes[1].error.code == grpc.StatusCode.ALREADY_EXISTS.value[0]

    run(scenario)


def test_of_several_commands_that_expect_one_version_the_first_wins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            outcomes = await send(
                server,
                message(
                    order("o-1", expected_version=0),
                    status("o-1", CONFIRMED, expected_version=1),
                    CancelOrderRequest(order_id="o-1", reason="too late", expected_version=1),
                    order("o-1", expected_version=0),
                ),
            )
            assert kinds(outcomes) == ["create_order", "update_order_status", "VERSION_CONFLICT", "VERSION_CONFLICT"]

    run(scenario)


def test_errors_are_those_of_a_call_to_the_last_byte_of_their_details(tmp_path: Path) -> None:
    async def scenario() -> None:
        bad_item = OrderItem(sku="", name="x" * 500, quantity=0, unit_price=Money(currency_code="dollars"))
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(order("o-1", request_id="r-1"))
            refused: list[tuple[Any, Any]] = [
                (server.orders.CreateOrder, CreateOrderRequest(order_id="a b", items=[bad_item, bad_item])),
                (server.orders.CreateOrder, order("o-1")),
                (server.orders.CreateOrder, order("c-1")),
                (server.orders.CreateOrder, order("o-2", request_id="r-1")),
                (server.orders.CreateOrder, order("o-2", customer_id="nobody")),
                (server.orders.UpdateOrderStatus, status("o-1", DELIVERED)),
                (server.orders.UpdateOrderStatus, status("o-1", CONFIRMED, expected_version=7)),
                (server.orders.CancelOrder, CancelOrderRequest(order_id="none", reason="ü%\n")),
                (server.customers.UpdateCustomer, UpdateCustomerRequest(customer_id="none", name="Ada")),
            ]
            outcomes = await send(server, message(*(request for _, request in refused)))
            for (method, request), outcome in zip(refused, outcomes, strict=True):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(request)
                trailers = dict(caught.value.trailing_metadata() or ())
                of_a_call = Status.FromString(bytes(trailers["grpc-status-details-bin"]))
                in_bulk = Status.FromString(outcome.error.SerializeToString())
                assert in_bulk == of_a_call
                assert in_bulk.details
                assert (in_bulk.code, in_bulk.message) == (caught.value.code().value[0], caught.value.details())

    run(scenario)


def test_what_a_calls_metadata_says_goes_into_all_events_of_the_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        metadata = (
            ("x-actor", "importer"), ("x-correlation-id", "import-7"), ("x-causation-id", "file-1"),
            ("x-reason", "moving in"), ("traceparent", trace),
        )  # fmt: skip
        async with command_server(tmp_path) as server:
            await server.register()
            await send(
                server, message(order("o-1", request_id="r-1"), order("o-2")), message(order("o-3")), metadata=metadata
            )
            log = (await server.read_log())[1:]
            assert [event.request_id for event in log] == ["r-1", None, None]
            for event in log:
                assert (event.actor, event.correlation_id, event.causation_id) == ("importer", "import-7", "file-1")
                assert (event.reason, event.traceparent) == ("moving in", trace)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(server, message(order("o-4")), metadata=(("x-actor", "a" * 200),))
            assert decode_error(caught.value).violations[0].field == "metadata x-actor"

    run(scenario)


MALFORMED = {
    "no command at all": b"",
    "more than 1,000": message(*[CancelOrderRequest()] * 1001).SerializeToString(),
    "no message of ours": b"\x0a\xff\xff",
}


@pytest.mark.parametrize("malformed", list(MALFORMED))
def test_a_malformed_message_ends_the_stream_after_the_answers_before_it_and_nothing_behind_it_takes_effect(
    tmp_path: Path, malformed: str
) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        async with command_server(tmp_path, failpoints=f"store.before_commit=pause:2:{go}") as server:
            await server.register()
            raw: Any = server.channel.stream_stream("/orderstream.commands.v1.CommandService/ExecuteCommands")
            good = [message(order(f"o-{number}")).SerializeToString() for number in range(4)]
            call = raw()
            for each in (*good[:2], MALFORMED[malformed], *good[2:]):
                await call.write(each)
            go.touch()
            for _ in range(2):
                assert kinds(ExecuteCommandsResponse.FromString(await call.read()).outcomes) == ["create_order"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            error = decode_error(caught.value)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            # One more command: what was sent before it has been dealt with.
            await server.orders.CreateOrder(order("last"))
            assert [event.aggregate_id for event in await server.read_log()] == ["c-1", "o-0", "o-1", "last"]

    run(scenario)


def test_a_thousand_commands_fit_in_a_message_and_one_that_is_empty_or_unknown_has_its_own_error(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            commands = message(*(order(f"o-{number}") for number in range(999)))
            commands.commands.add()
            outcomes = await send(server, commands, commands)
            assert kinds(outcomes) == ["create_order"] * 999 + ["INVALID_REQUEST"] + (
                ["ORDER_ALREADY_EXISTS"] * 999 + ["INVALID_REQUEST"]
            )
            assert_one_gapless_chain(await server.read_log())

    run(scenario)


def test_an_answer_that_would_be_too_large_for_a_client_comes_in_parts(tmp_path: Path) -> None:
    async def scenario() -> None:
        item = OrderItem(name="A book " * 20, quantity=1, unit_price=Money(currency_code="USD", units=10))
        items = [OrderItem(sku=f"book-{number}") for number in range(60)]
        for each in items:
            each.MergeFrom(item)
        cities = islice(cycle(["London", "Paris"]), 1000)
        changes = message(
            *(
                ChangeShippingAddressRequest(
                    order_id="o-1",
                    shipping_address=Address(recipient="Ada", lines=["1 Main St"], city=city, country_code="GB"),
                )
                for city in cities
            )
        )
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(CreateOrderRequest(order_id="o-1", customer_id="c-1", items=items))
            answers = [answer async for answer in server.bulk.ExecuteCommands(iter([changes, message(order("o-2"))]))]
            assert len(answers) > 5
            assert all(answer.ByteSize() <= LIMIT for answer in answers)
            outcomes = [outcome for answer in answers for outcome in answer.outcomes]
            versions = [each.change_shipping_address.version for each in outcomes[:-1]]
            assert versions == list(range(2, 1002))
            assert kinds(outcomes[-1:]) == ["create_order"]

    run(scenario)


def test_killed_again_and_again_in_the_middle_of_a_stream_every_command_takes_effect_once(tmp_path: Path) -> None:
    orders = 1000
    commands = [
        command
        for number in range(orders)
        for command in (
            order(f"o-{number}", request_id=f"create-{number}"),
            status(f"o-{number}", CONFIRMED, expected_version=1, request_id=f"confirm-{number}"),
        )
    ]
    messages = [message(*commands[start : start + 40]) for start in range(0, len(commands), 40)]
    answered: dict[int, bytes] = {}

    async def send_everything(failpoint: str) -> bool:
        """Whether the stream came through. An outcome is the same as in all attempts before."""
        async with command_server(tmp_path, failpoints=failpoint) as server:
            number = 0
            try:
                async for answer in server.bulk.ExecuteCommands(iter(messages)):
                    for outcome in answer.outcomes:
                        assert not outcome.HasField("error"), outcome.error.message
                        assert outcome.replayed or number not in answered
                        outcome.replayed = False
                        assert answered.setdefault(number, outcome.SerializeToString()) == outcome.SerializeToString()
                        number += 1
            except grpc.aio.AioRpcError:
                return False
            return True

    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
        for place, nth in (("committer.before_answer", 1), ("store.before_commit", 2), ("store.after_commit", 2)):
            assert not await send_everything(f"{place}=kill:{nth}")
        assert await send_everything("")
        assert len(answered) == len(commands)
        async with command_server(tmp_path) as server:
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 1 + len(commands)

    run(scenario)
