"""`orderstream customers`: commands to customers, and a query for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console
from cli.command import command
from cli.console import OutputFormat
from cli.options import CommandOptions, Connection, MaxWait, Output, Token, with_command_options, with_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orderstream.customers.v1.commands_pb2 import RegisterCustomerResponse, UpdateCustomerResponse
    from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceAsyncStub

app = typer.Typer(help="Register, change and look at customers.", no_args_is_help=True)

CustomerId = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]


@command(app, "register", "orderstream customers register --id ada --name 'Ada Lovelace' --email ada@example.org")
@with_command_options
def register(
    connection: Connection,
    sent: CommandOptions,
    name: Annotated[str, typer.Option(metavar="NAME", help="The customer's name.")],
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="The customer's email address.")],
    customer_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="The customer's id. The server makes one if not given.")
    ] = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Register a customer."""
    from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest

    request = RegisterCustomerRequest(customer_id=customer_id, name=name, email=email, **sent.fields())
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.RegisterCustomer(request, **call))


@command(app, "update", "orderstream customers update ada --name 'Ada King'")
@with_command_options
def update(
    connection: Connection,
    sent: CommandOptions,
    customer_id: CustomerId,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The new name.")] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="The new email address.")] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Change a customer's name or email address. Their orders show it too."""
    from orderstream.customers.v1.commands_pb2 import UpdateCustomerRequest

    request = UpdateCustomerRequest(customer_id=customer_id, name=name, email=email, **sent.fields())
    _send(connection, sent, output, request.request_id, lambda stub, call: stub.UpdateCustomer(request, **call))


@command(app, "get", "orderstream customers get cdnow-00004", "orderstream customers get ada --token TOKEN -o json")
@with_connection
def get(
    connection: Connection,
    customer_id: CustomerId,
    token: Token = "",
    max_wait: MaxWait = 2.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show a customer, from the read model."""
    from rich.console import Group

    from cli.calls import call, seconds
    from cli.rendering.common import freshness_banner
    from cli.rendering.orders import customer_details
    from orderstream.customers.v1.queries_pb2 import GetCustomerRequest
    from orderstream.customers.v1.queries_pb2_grpc import CustomerQueryServiceStub

    request = GetCustomerRequest(customer_id=customer_id, consistency_token=token, max_wait=seconds(max_wait))
    answer = call(
        connection,
        connection.query_server,
        lambda channel: CustomerQueryServiceStub(channel).GetCustomer(request, timeout=connection.timeout + max_wait),
    )
    console.print_one(
        output,
        console.to_json(answer),
        lambda: Group(freshness_banner(answer.freshness), customer_details(answer.customer, answer.customer.version)),
    )


def _send(
    connection: Connection,
    sent: CommandOptions,
    output: OutputFormat,
    request_id: str,
    send: Callable[
        [CustomerCommandServiceAsyncStub, dict[str, Any]],
        Awaitable[RegisterCustomerResponse | UpdateCustomerResponse],
    ],
) -> None:
    """Send a command and print the customer as they are after it."""
    from cli.calls import send_command
    from cli.rendering.orders import customer_details
    from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub

    call = {"timeout": connection.timeout, "metadata": sent.metadata()}
    answer = send_command(connection, request_id, lambda channel: send(CustomerCommandServiceStub(channel), call))
    console.print_one(output, console.to_json(answer), lambda: customer_details(answer.customer, answer.version))
    if output is OutputFormat.TEXT:
        console.note(f"token: {answer.consistency_token}")
