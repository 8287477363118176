"""`orderstream orders`: commands to orders. The queries of the same group are in order_queries.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console
from cli.command import command
from cli.commands.command_options import City, Country, Currency, Lines, PostalCode, Recipient, Region
from cli.console import OutputFormat
from cli.options import CommandOptions, Connection, Output, with_command_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orderstream.orders.v1 import commands_pb2
    from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceAsyncStub

    OrderResponse = (
        commands_pb2.CreateOrderResponse
        | commands_pb2.AddOrderItemResponse
        | commands_pb2.RemoveOrderItemResponse
        | commands_pb2.ChangeShippingAddressResponse
        | commands_pb2.UpdateOrderStatusResponse
        | commands_pb2.CancelOrderResponse
    )

app = typer.Typer(help="Place, change and look at orders.", no_args_is_help=True)

OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")]


@command(
    app,
    "create",
    "orderstream orders create --customer cdnow-00004 --item book-1,2,12.50,'A book' --item pen-7,1,0.99",
    "orderstream orders create --id order-1 --customer cdnow-00004 --item book-1,1,12.50 -o json",
)
@with_command_options
def create(
    connection: Connection,
    sent: CommandOptions,
    customer: Annotated[str, typer.Option(metavar="CUSTOMER", help="The customer's id; they must be registered.")],
    items: Annotated[
        list[str],
        typer.Option("--item", metavar="SKU,QUANTITY,PRICE[,NAME]", help="What is ordered; once for each item."),
    ],
    order_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="The order's id. The server makes one if not given.")
    ] = "",
    currency: Currency = "USD",
    recipient: Recipient = "",
    lines: Lines = None,
    city: City = "",
    region: Region = "",
    postal_code: PostalCode = "",
    country: Country = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Place an order for a registered customer."""
    from cli import arguments
    from orderstream.orders.v1.commands_pb2 import CreateOrderRequest

    request = CreateOrderRequest(
        order_id=order_id,
        customer_id=customer,
        items=[arguments.item(text, currency) for text in items],
        shipping_address=arguments.address(recipient, lines or [], city, region, postal_code, country),
        **sent.fields(),
    )
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.CreateOrder(request, **call))


@command(app, "add-item", "orderstream orders add-item order-1 --item pen-7,3,0.99,'A pen'")
@with_command_options
def add_item(
    connection: Connection,
    sent: CommandOptions,
    order_id: OrderId,
    item: Annotated[str, typer.Option(metavar="SKU,QUANTITY,PRICE[,NAME]", help="What to add.")],
    currency: Currency = "USD",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Add an item, or more pieces of one that the order has. Before confirmation only."""
    from cli import arguments
    from orderstream.orders.v1.commands_pb2 import AddOrderItemRequest

    request = AddOrderItemRequest(
        order_id=order_id,
        item=arguments.item(item, currency),
        **sent.fields(),
    )
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.AddOrderItem(request, **call))


@command(app, "remove-item", "orderstream orders remove-item order-1 --sku pen-7 --quantity 2")
@with_command_options
def remove_item(
    connection: Connection,
    sent: CommandOptions,
    order_id: OrderId,
    sku: Annotated[str, typer.Option(metavar="SKU", help="The item's SKU.")],
    quantity: Annotated[int | None, typer.Option(metavar="N", help="How many pieces; all if not given.")] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Remove an item, or some pieces of it. Before confirmation only."""
    from orderstream.orders.v1.commands_pb2 import RemoveOrderItemRequest

    request = RemoveOrderItemRequest(order_id=order_id, sku=sku, quantity=quantity, **sent.fields())
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.RemoveOrderItem(request, **call))


@command(
    app,
    "set-address",
    "orderstream orders set-address order-1 --recipient 'A. Buyer' --line 'Main Street 1' --city Berlin --country DE",
)
@with_command_options
def set_address(
    connection: Connection,
    sent: CommandOptions,
    order_id: OrderId,
    recipient: Recipient = "",
    lines: Lines = None,
    city: City = "",
    region: Region = "",
    postal_code: PostalCode = "",
    country: Country = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Set or replace the shipping address. Before confirmation only."""
    from cli import arguments
    from orderstream.orders.v1.commands_pb2 import ChangeShippingAddressRequest

    request = ChangeShippingAddressRequest(
        order_id=order_id,
        shipping_address=arguments.address(recipient, lines or [], city, region, postal_code, country),
        **sent.fields(),
    )
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.ChangeShippingAddress(request, **call))


@command(app, "set-status", "orderstream orders set-status order-1 confirmed --expected-version 1")
@with_command_options
def set_status(
    connection: Connection,
    sent: CommandOptions,
    order_id: OrderId,
    status: Annotated[
        str,
        typer.Argument(metavar="STATUS", help="confirmed, paid, shipped, delivered or returned, one step at a time."),
    ],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Move an order one step along its life."""
    from cli import arguments
    from orderstream.orders.v1.commands_pb2 import UpdateOrderStatusRequest

    request = UpdateOrderStatusRequest(
        order_id=order_id,
        status=arguments.status(status),
        **sent.fields(),
    )
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.UpdateOrderStatus(request, **call))


@command(app, "cancel", "orderstream orders cancel order-1 --reason 'changed my mind'")
@with_command_options
def cancel(
    connection: Connection,
    sent: CommandOptions,
    order_id: OrderId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why.")],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Cancel an order. Not once it is shipped."""
    from orderstream.orders.v1.commands_pb2 import CancelOrderRequest

    request = CancelOrderRequest(order_id=order_id, reason=reason, **sent.fields())
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.CancelOrder(request, **call))


def _send(
    connection: Connection,
    sent: CommandOptions,
    output: OutputFormat,
    request_id: str,
    send: Callable[[OrderCommandServiceAsyncStub, dict[str, Any]], Awaitable[OrderResponse]],
) -> None:
    """Send a command and print the order as it is after it."""
    from cli.calls import send_command
    from cli.rendering.orders import order_details
    from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub

    call = {"timeout": connection.timeout, "metadata": sent.metadata()}
    answer = send_command(connection, request_id, lambda channel: send(OrderCommandServiceStub(channel), call))
    console.print_one(output, console.to_json(answer), lambda: order_details(answer.order, answer.version))
    if output is OutputFormat.TEXT:
        console.note(f"token: {answer.consistency_token}")
