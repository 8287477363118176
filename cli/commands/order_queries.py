"""`orderstream orders get` and `orders list`: queries, which join the group of the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import console
from cli.command import command
from cli.commands.orders import OrderId, app
from cli.console import OutputFormat
from cli.options import Connection, MaxWait, Output, Token, with_connection

__all__ = ["app"]


@command(
    app, "get", "orderstream orders get cdnow-00004-19970101-1", "orderstream orders get order-1 --token TOKEN -o json"
)
@with_connection
def get(
    connection: Connection,
    order_id: OrderId,
    token: Token = "",
    max_wait: MaxWait = 2.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show an order, from the read model."""
    from rich.console import Group

    from cli.calls import call, seconds
    from cli.rendering.common import freshness_banner
    from cli.rendering.orders import order_details
    from orderstream.orders.v1.queries_pb2 import GetOrderRequest
    from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub

    request = GetOrderRequest(order_id=order_id, consistency_token=token, max_wait=seconds(max_wait))
    answer = call(
        connection,
        connection.query_server,
        lambda channel: OrderQueryServiceStub(channel).GetOrder(request, timeout=connection.timeout + max_wait),
    )
    console.print_one(
        output,
        console.to_json(answer),
        lambda: Group(freshness_banner(answer.freshness), order_details(answer.order, answer.order.version)),
    )


@command(
    app,
    "list",
    "orderstream orders list --status created --from 1998-06-01 --limit 20",
    "orderstream orders list --customer cdnow-00004 -o jsonl",
)
@with_connection
def list_orders(
    connection: Connection,
    statuses: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="Only with this status; may be given several times."),
    ] = None,
    customer: Annotated[str, typer.Option(metavar="CUSTOMER", help="Only this customer's.")] = "",
    time_from: Annotated[str, typer.Option("--from", metavar="TIME", help="Only placed at or after this.")] = "",
    time_to: Annotated[str, typer.Option("--to", metavar="TIME", help="Only placed before this.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, metavar="N", help="At most this many.")] = 50,
    page_token: Annotated[str, typer.Option(metavar="TOKEN", help="Go on where an earlier list ended.")] = "",
    token: Token = "",
    max_wait: MaxWait = 2.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """List orders, newest first. The token of the next page is told on stderr."""
    from rich.console import Group

    from cli import arguments
    from cli.calls import call, seconds
    from cli.rendering.common import freshness_banner
    from cli.rendering.orders import order_table
    from orderstream.orders.v1.queries_pb2 import ListOrdersRequest
    from orderstream.orders.v1.queries_pb2_grpc import OrderQueryServiceStub

    request = ListOrdersRequest(
        statuses=[arguments.status(status) for status in statuses or ()],
        customer_id=customer,
        create_time_from=arguments.timestamp(time_from) if time_from else None,
        create_time_to=arguments.timestamp(time_to) if time_to else None,
        page_size=limit,
        page_token=page_token,
        consistency_token=token,
        max_wait=seconds(max_wait),
    )
    answer = call(
        connection,
        connection.query_server,
        lambda channel: OrderQueryServiceStub(channel).ListOrders(request, timeout=connection.timeout + max_wait),
    )
    console.print_many(
        output,
        [console.to_json(order) for order in answer.orders],
        lambda: Group(freshness_banner(answer.freshness), order_table(answer.orders)),
    )
    if answer.next_page_token:
        console.note(f"more: add --page-token {answer.next_page_token}")
