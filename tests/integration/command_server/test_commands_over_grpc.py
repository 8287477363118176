"""The command services as a client sees them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cqrs.tokens import decode_token
from domain.order import CANCELLED, CONFIRMED, DELIVERED, PAID, RETURNED, SHIPPED
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, UpdateCustomerRequest
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest, ReadAggregateRequest, ReadLogRequest
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
from orderstream_client.errors import OrderstreamCallError, decode_error
from tests.integration.command_server.rig import command_server, order, run
from tests.integration.logs import assert_one_gapless_chain

HOME = Address(recipient="Ada", lines=["1 Main St"], city="London", country_code="GB")


async def refused(call: grpc.aio.UnaryUnaryCall) -> OrderstreamCallError:  # type: ignore[type-arg]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return decode_error(caught.value)


def test_an_order_lives_from_creation_to_return_and_the_log_has_every_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            orders = server.orders
            created = await orders.CreateOrder(order("o-1"))
            pen = OrderItem(
                sku="pen", name="A pen", quantity=1, unit_price=Money(currency_code="USD", nanos=990_000_000)
            )
            added = await orders.AddOrderItem(AddOrderItemRequest(order_id="o-1", item=pen))
            assert (added.order.total.units, added.order.total.nanos) == (20, 990_000_000)
            await orders.RemoveOrderItem(RemoveOrderItemRequest(order_id="o-1", sku="pen"))
            await orders.ChangeShippingAddress(ChangeShippingAddressRequest(order_id="o-1", shipping_address=HOME))
            answer = created
            for status in (CONFIRMED, PAID, SHIPPED, DELIVERED, RETURNED):
                answer = await orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-1", status=status))
            assert (answer.version, answer.order.status, answer.order.total.units) == (9, RETURNED, 20)
            assert decode_token(answer.consistency_token).position == 10
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert [event.event_type.rpartition(".")[2] for event in log] == [
                "CustomerRegistered",
                "OrderCreated",
                "OrderItemAdded",
                "OrderItemRemoved",
                "OrderShippingAddressChanged",
                *["OrderStatusChanged"] * 5,
            ]

    run(scenario)


def test_ids_are_made_by_the_server_when_the_client_gives_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            customer = await server.customers.RegisterCustomer(RegisterCustomerRequest(name="Ada", email="a@b.c"))
            one, two = [
                await server.orders.CreateOrder(order(customer_id=customer.customer.customer_id)) for _ in range(2)
            ]
            assert one.order.order_id != two.order.order_id
            with_request_id = order(customer_id=customer.customer.customer_id, request_id="r-1")
            first, again = [await server.orders.CreateOrder(with_request_id) for _ in range(2)]
            assert first == again

    run(scenario)


def test_sixty_four_clients_on_one_order_exactly_one_wins_each_version_and_no_update_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(order("o-1"))
            won: list[int] = []
            aborted = 0

            async def client(number: int) -> None:
                nonlocal aborted
                version = 1
                for _ in range(200):
                    request = ChangeShippingAddressRequest(
                        order_id="o-1",
                        shipping_address=Address(
                            recipient=f"client {number}", lines=["1"], city="London", country_code="GB"
                        ),
                        expected_version=version,
                    )
                    try:
                        won.append((await server.orders.ChangeShippingAddress(request)).version)
                        return
                    except grpc.aio.AioRpcError as error:
                        conflict = decode_error(error)
                        assert (conflict.code, conflict.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
                        assert conflict.metadata["expected_version"] == str(version)
                        version = int(conflict.metadata["current_version"])
                        aborted += 1
                pytest.fail("never won")

            await asyncio.gather(*(client(number) for number in range(64)))
            assert sorted(won) == list(range(2, 66))
            assert aborted >= 63
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 66

    run(scenario)


def test_every_violation_of_a_malformed_request_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            bad = CreateOrderRequest(
                order_id="-no",
                customer_id="",
                items=[
                    OrderItem(sku="", name="x" * 201, quantity=-1, unit_price=Money(currency_code="usd", units=-1)),
                    OrderItem(
                        sku="b",
                        name="B\x00",
                        quantity=1_000_001,
                        unit_price=Money(currency_code="EUR", units=1_000_000_000, nanos=1),
                    ),
                    OrderItem(sku="b", name="B", quantity=1, unit_price=Money(currency_code="EUR", nanos=-5)),
                ],
                shipping_address=Address(lines=["a"] * 5, country_code="de"),
                request_id="\n",
                expected_version=-1,
                occur_time=Timestamp(seconds=-1),
            )
            error = await refused(server.orders.CreateOrder(bad))
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert {violation.field for violation in error.violations} == {
                "order_id",
                "customer_id",
                "items[0].sku",
                "items[0].name",
                "items[0].quantity",
                "items[0].unit_price.currency_code",
                "items[0].unit_price.units",
                "items[1].name",
                "items[1].quantity",
                "items[1].unit_price.units",
                "items[1].unit_price.currency_code",
                "items[2].sku",
                "items[2].unit_price.nanos",
                "items[2].unit_price.currency_code",
                "shipping_address.recipient",
                "shipping_address.lines",
                "shipping_address.city",
                "shipping_address.country_code",
                "request_id",
                "expected_version",
                "occur_time",
            }
            assert await server.read_log() == []

    run(scenario)


def test_bad_input_of_every_kind_is_refused_with_a_reason_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(order("o-1"))
            orders, customers = server.orders, server.customers
            mixed = order("o-2")
            mixed.items.add(sku="pen", name="A pen", quantity=1, unit_price=Money(currency_code="EUR", units=1))
            overflowing = CreateOrderRequest(customer_id="c-1")
            for number in range(2):
                overflowing.items.add(
                    sku=f"gold-{number}",
                    name="Gold",
                    quantity=1_000_000,
                    unit_price=Money(currency_code="USD", units=1_000_000_000),
                )
            many = order("o-2")
            many.items.extend([many.items[0]] * 200)
            far = Timestamp(seconds=253_402_300_799)
            cases = [
                (orders.CreateOrder(CreateOrderRequest()), "INVALID_REQUEST"),
                (orders.CreateOrder(mixed), "INVALID_REQUEST"),
                (orders.CreateOrder(many), "INVALID_REQUEST"),
                (orders.CreateOrder(overflowing), "ORDER_TOO_LARGE"),
                (orders.CreateOrder(order("o-2", customer_id="nobody")), "CUSTOMER_NOT_REGISTERED"),
                (orders.CreateOrder(order("o-2", customer_id="o-1")), "CUSTOMER_NOT_REGISTERED"),
                (orders.CreateOrder(order("o-1")), "ORDER_ALREADY_EXISTS"),
                (orders.CreateOrder(order("c-1")), "AGGREGATE_ID_TAKEN"),
                (orders.CreateOrder(order("o-2", occur_time=far)), "INVALID_REQUEST"),
                (orders.CreateOrder(order("o-2", expected_version=3)), "VERSION_CONFLICT"),
                (orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-1", status=99)), "INVALID_REQUEST"),  # type: ignore[arg-type]
                (
                    orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-1", status=CANCELLED)),
                    "INVALID_REQUEST",
                ),
                (
                    orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-1", status=SHIPPED)),
                    "ILLEGAL_STATUS_TRANSITION",
                ),
                (orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-9", status=PAID)), "ORDER_NOT_FOUND"),
                (orders.AddOrderItem(AddOrderItemRequest(order_id="o-1")), "INVALID_REQUEST"),
                (orders.ChangeShippingAddress(ChangeShippingAddressRequest(order_id="o-1")), "INVALID_REQUEST"),
                (orders.CancelOrder(CancelOrderRequest(order_id="o-1")), "INVALID_REQUEST"),
                (orders.RemoveOrderItem(RemoveOrderItemRequest(order_id="o-1", sku="book")), "ORDER_WOULD_BE_EMPTY"),
                (customers.RegisterCustomer(RegisterCustomerRequest(name="Ada", email="nobody")), "INVALID_REQUEST"),
                (customers.UpdateCustomer(UpdateCustomerRequest(customer_id="c-1")), "INVALID_REQUEST"),
                (customers.UpdateCustomer(UpdateCustomerRequest(customer_id="c-9", name="A")), "CUSTOMER_NOT_FOUND"),
                (customers.UpdateCustomer(UpdateCustomerRequest(customer_id="o-1", name="A")), "AGGREGATE_ID_TAKEN"),
            ]
            for call, reason in cases:
                assert (await refused(call)).reason == reason
            huge = order("o-2")
            huge.items[0].name = "x" * 5_000_000
            assert (await refused(orders.CreateOrder(huge))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
            garbage: Any = server.channel.unary_unary("/orderstream.orders.v1.OrderCommandService/CreateOrder")
            assert (await refused(garbage(b"\xff\xff\xff"))).code is grpc.StatusCode.INVALID_ARGUMENT
            assert len(await server.read_log()) == 2
            await orders.CreateOrder(order("o-2"))

    run(scenario)


def test_who_and_what_caused_a_command_goes_into_its_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        async with command_server(tmp_path) as server:
            await server.register()
            await server.orders.CreateOrder(
                order("o-1", request_id="r-1"),
                metadata=(
                    ("traceparent", trace),
                    ("x-actor", "ada"),
                    ("x-correlation-id", "basket-7"),
                    ("x-causation-id", "event-3"),
                    ("x-reason", "ticket 12: called by phone"),
                ),
            )
            await server.orders.CreateOrder(order("o-2"), metadata=(("traceparent", "00-zz-1"),))
            first, second = (await server.read_log())[1:]
            assert first[7:12] == ("r-1", "basket-7", "event-3", "ada", trace)
            assert first.reason == "ticket 12: called by phone"
            assert second[7:12] == (None, None, None, None, None)
            long = await refused(server.orders.CreateOrder(order(), metadata=(("x-actor", "a" * 200),)))
            assert long.violations[0].field == "metadata x-actor"

    run(scenario)


def test_an_import_keeps_its_own_time_and_the_record_time_is_the_servers(tmp_path: Path) -> None:
    async def scenario() -> None:
        past = Timestamp(seconds=852_076_800)
        async with command_server(tmp_path) as server:
            await server.register()
            created = await server.orders.CreateOrder(order("o-1", occur_time=past))
            assert created.order.create_time == past
            assert (await server.read_log())[-1].record_time > 1_700_000_000_000_000

    run(scenario)


def test_a_repeated_request_id_is_answered_with_the_same_bytes_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            raw: Any = server.channel.unary_unary("/orderstream.orders.v1.OrderCommandService/CreateOrder")
            request = order(request_id="r-1").SerializeToString()
            calls = [raw(request) for _ in range(200)]
            answers = await asyncio.gather(*calls)
            assert len(set(answers)) == 1
            said = [("x-idempotent-replayed", "true") in tuple(await call.trailing_metadata()) for call in calls]
            assert sorted(said) == [False] + [True] * 199
            other = await refused(server.orders.CreateOrder(order("other", request_id="r-1")))
            assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            assert len(await server.read_log()) == 2

    run(scenario)


def test_the_log_is_read_in_chunks_from_any_position_and_an_aggregate_from_any_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await server.register()
            for hundred in range(12):
                numbers = range(100 * hundred, 100 * (hundred + 1))
                await asyncio.gather(*(server.orders.CreateOrder(order(f"o-{number}")) for number in numbers))
            chunks = [chunk async for chunk in server.events.ReadLog(ReadLogRequest())]
            assert len(chunks) > 2
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 1201
            assert await server.read_log(from_position=700, max_count=3) == log[699:702]
            assert await server.read_log(from_position=5000) == []
            head = await server.events.DescribeLog(DescribeLogRequest())
            assert (head.position, head.hash) == (1201, log[-1].hash)
            for status in (CONFIRMED, PAID):
                await server.orders.UpdateOrderStatus(UpdateOrderStatusRequest(order_id="o-7", status=status))
            versions = [
                event.version
                async for chunk in server.events.ReadAggregate(ReadAggregateRequest(aggregate_id="o-7", from_version=2))
                for event in chunk.events
            ]
            assert versions == [2, 3]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in server.events.ReadLog(ReadLogRequest(from_position=-1)):
                    pass
            assert decode_error(caught.value).reason == "INVALID_REQUEST"

    run(scenario)
