from __future__ import annotations

import pytest
from google.protobuf.message import Message

from command_server.commands.responses import ResponseWriter
from cqrs.wire import varint
from orderstream.customers.v1.commands_pb2 import RegisterCustomerResponse
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest, CreateOrderResponse
from orderstream.orders.v1.order_pb2 import Order, OrderItem


@pytest.mark.parametrize("version", [1, 127, 128, 300, 2**40])
@pytest.mark.parametrize("items", [0, 1, 200])
def test_a_response_has_the_bytes_that_protobuf_would_write(items: int, version: int) -> None:
    order = Order(order_id="order-1", items=[OrderItem(sku=f"sku-{n}", name="ä" * n) for n in range(items)])
    written = ResponseWriter(CreateOrderResponse, "order")(order, version, "token")

    response = CreateOrderResponse(order=order, version=version, consistency_token="token")
    assert written == response.SerializeToString()


def test_a_response_has_its_resource_also_when_that_is_empty() -> None:
    written = ResponseWriter(RegisterCustomerResponse, "customer")(Customer(), 1, "token")

    assert RegisterCustomerResponse.FromString(written).HasField("customer")


@pytest.mark.parametrize(
    ("response", "resource"), [(CreateOrderResponse, "customer"), (CreateOrderRequest, "order"), (Order, "order")]
)
def test_a_response_of_another_form_is_refused_before_anything_is_served(
    response: type[Message], resource: str
) -> None:
    with pytest.raises(TypeError, match="must have the fields"):
        ResponseWriter(response, resource)


def test_an_integer_is_written_in_as_few_bytes_as_it_takes() -> None:
    assert [varint(value) for value in (0, 1, 127, 128, 300)] == [b"\0", b"\1", b"\x7f", b"\x80\x01", b"\xac\x02"]
