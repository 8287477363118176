"""`orderstream dashboard`: the sales dashboard in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import console
from cli.console import OutputFormat
from cli.options import Connection, MaxWait, Output, Token, with_connection

EXAMPLES = ("orderstream dashboard", "orderstream dashboard --currency USD --top 3 --day-from 1998-06-01 -o json")


@with_connection
def dashboard(
    connection: Connection,
    currency: Annotated[str, typer.Option(metavar="CODE", help="Only this currency (ISO 4217).")] = "",
    day_from: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Days from this one on.")] = "",
    day_to: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Days before this one.")] = "",
    top: Annotated[int, typer.Option(min=0, max=100, metavar="N", help="How many top customers per currency.")] = 10,
    token: Token = "",
    max_wait: MaxWait = 2.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show orders and revenue by status, month and day, and the top customers.

    A red STALE above it tells when it may be out of date.
    """
    from cli.calls import call, seconds
    from cli.rendering.dashboard import dashboard as render
    from orderstream.sales.v1.queries_pb2 import GetSalesDashboardRequest
    from orderstream.sales.v1.queries_pb2_grpc import SalesQueryServiceStub

    request = GetSalesDashboardRequest(
        currency_code=currency,
        day_from=day_from,
        day_to=day_to,
        top_customers=top,
        consistency_token=token,
        max_wait=seconds(max_wait),
    )
    answer = call(
        connection,
        connection.query_server,
        lambda channel: SalesQueryServiceStub(channel).GetSalesDashboard(
            request, timeout=connection.timeout + max_wait
        ),
    )
    console.print_one(output, console.to_json(answer), lambda: render(answer))
