"""`orderstream events`: the event log as it grows, what happened to one order or customer, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.command import command
from cli.console import OutputFormat
from cli.options import Connection, Output, with_connection

if TYPE_CHECKING:
    from orderstream.events.v1.event_pb2 import RecordedEvent

app = typer.Typer(help="Look at the event log.", no_args_is_help=True)

AggregateId = Annotated[str, typer.Argument(metavar="ID", help="An order's or a customer's id.")]
FromTime = Annotated[
    str,
    typer.Option("--from-time", metavar="TIME", help="Begin with the first event recorded at or after this time."),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most this many events.")]


@command(
    app,
    "tail",
    "orderstream events tail",
    "orderstream events tail --from 1 --no-follow -o jsonl",
    "orderstream events tail --aggregate order-1 --no-follow",
    "orderstream events tail --event-type orderstream.orders.v1.OrderCancelled --from-time 2026-05-01",
)
@with_connection
def tail(
    connection: Connection,
    start: Annotated[
        int | None,
        typer.Option(
            "--from",
            min=1,
            metavar="N",
            show_default="the last 10 events",
            help="First log position to show; with --aggregate, its first version.",
        ),
    ] = None,
    from_time: FromTime = "",
    aggregate: Annotated[str, typer.Option(metavar="ID", help="Only this order's or customer's events.")] = "",
    aggregate_types: Annotated[
        list[str] | None,
        typer.Option("--aggregate-type", metavar="TYPE", help="Only of orders (order) or customers (customer)."),
    ] = None,
    event_types: Annotated[
        list[str] | None,
        typer.Option("--event-type", metavar="NAME", help="Only of this type, by its full name; several times."),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Go on and show events as they come, until Ctrl-C.")] = True,
    limit: Limit = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show events of the log in order, a line each, and those to come.

    A server that goes away and comes back is waited for, and no event is missed or shown twice.
    """
    import asyncio

    from cli import arguments
    from cli.following import Wanted, follow_events

    if start is not None and from_time:
        raise typer.BadParameter("--from and --from-time cannot be combined")
    wanted = Wanted(
        aggregate,
        start,
        arguments.timestamp(from_time) if from_time else None,
        tuple(aggregate_types or ()),
        tuple(event_types or ()),
    )
    printer = _Printer(output)
    try:
        asyncio.run(follow_events(connection, wanted, printer.show, follow=follow, limit=limit))
    except KeyboardInterrupt:
        # How following is meant to end.
        if not follow:
            raise
    finally:
        printer.close()


@command(
    app,
    "read",
    "orderstream events read order-1",
    "orderstream events read order-1 --backwards --limit 5",
    "orderstream events read order-1 --from-time 2026-05-01T12:00:00Z -o jsonl",
)
@with_connection
def read(
    connection: Connection,
    aggregate_id: AggregateId,
    from_version: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="the first; backwards, the newest", help="Begin here."),
    ] = None,
    from_time: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Begin with the first event at or after this time; backwards, the last at or before it.",
        ),
    ] = "",
    backwards: Annotated[bool, typer.Option("--backwards", help="From newer to older.")] = False,
    limit: Limit = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what happened to one order or customer, a line for each event."""
    import asyncio

    from cli import arguments
    from cli.reading import read_aggregate
    from orderstream.events.v1.event_service_pb2 import (
        READ_DIRECTION_BACKWARDS,
        READ_DIRECTION_FORWARDS,
        ReadAggregateRequest,
    )

    request = ReadAggregateRequest(
        aggregate_id=aggregate_id,
        from_version=from_version or 0,
        from_time=arguments.timestamp(from_time) if from_time else None,
        max_count=limit or 0,
        direction=READ_DIRECTION_BACKWARDS if backwards else READ_DIRECTION_FORWARDS,
    )
    printer = _Printer(output)
    try:
        asyncio.run(read_aggregate(connection, request, printer.show))
    finally:
        printer.close()
    if not printer.printed:
        console.note(f"no events of {aggregate_id}")


@command(app, "show", "orderstream events show 17", "orderstream events show 17 -o json")
@with_connection
def show(
    connection: Connection,
    position: Annotated[int, typer.Argument(min=1, metavar="POSITION", help="Its position in the log.")],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show one event: what happened, when, by whom, why, and its place in the hash chain."""
    import asyncio

    from cli.reading import read_event
    from cli.rendering.events import event_details, event_json

    event = asyncio.run(read_event(connection, position))
    console.print_one(output, event_json(event), lambda: event_details(event))


@command(
    app,
    "state",
    "orderstream events state order-1",
    "orderstream events state order-1 --at-version 3",
    "orderstream events state order-1 --at-time 2026-05-01T12:00:00Z -o json",
)
@with_connection
def state(
    connection: Connection,
    aggregate_id: AggregateId,
    at_version: Annotated[int | None, typer.Option(min=1, metavar="N", help="As it was at this version.")] = None,
    at_position: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As it was when the log had got to this position.")
    ] = None,
    at_time: Annotated[str, typer.Option(metavar="TIME", help="As it was at this time.")] = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show an order or a customer as it is, or as it was at a version, a log position or a time.

    It is folded from the log, not taken from the read model.
    """
    from cli import arguments
    from cli.calls import call
    from cli.rendering.states import state_details
    from orderstream.events.v1.event_service_pb2 import GetAggregateStateRequest
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub

    if sum(map(bool, (at_version, at_position, at_time))) > 1:
        raise typer.BadParameter("--at-version, --at-position and --at-time cannot be combined")
    request = GetAggregateStateRequest(aggregate_id=aggregate_id)
    if at_version:
        request.version = at_version
    elif at_position:
        request.position = at_position
    elif at_time:
        request.time.CopyFrom(arguments.timestamp(at_time))
    answer = call(
        connection,
        connection.command_server,
        lambda channel: EventServiceStub(channel).GetAggregateState(request, timeout=connection.timeout),
    )
    # The text first: with it come the messages that JSON is made of.
    text = state_details(answer)
    console.print_one(output, console.to_json(answer), lambda: text)


@command(
    app,
    "tree",
    "orderstream events tree --correlation checkout-4711",
    "orderstream events tree --position 17",
    "orderstream events tree --correlation checkout-4711 -o json",
)
@with_connection
def tree(
    connection: Connection,
    correlation: Annotated[str, typer.Option(metavar="ID", help="All events with this correlation id.")] = "",
    position: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The event at this log position: its causes and effects.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="At most this many events.")] = 1_000,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what led to what: each event below the one that led to it.

    A command tells what led to it with --causation (call metadata x-causation-id): an event's id, or the request id of
    another command.
    """
    from cli.calls import call
    from cli.rendering.trees import causation_tree, node_json
    from orderstream.events.v1.event_service_pb2 import GetCausationTreeRequest
    from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub

    if bool(correlation) == bool(position):
        raise typer.BadParameter("give --correlation or --position")
    request = GetCausationTreeRequest(max_events=limit)
    if correlation:
        request.correlation_id = correlation
    elif position:
        request.position = position
    answer = call(
        connection,
        connection.command_server,
        lambda channel: EventServiceStub(channel).GetCausationTree(request, timeout=connection.timeout),
    )
    console.print_many(
        output, [node_json(node) for node in answer.nodes], lambda: causation_tree(answer, position or 0)
    )
    if answer.truncated:
        console.warn(f"there are more than these {len(answer.nodes):,} events; --limit allows up to 10,000")


class _Printer:
    """Prints events as they come: a line each, or the elements of a JSON array."""

    def __init__(self, output: OutputFormat) -> None:
        self._output = output
        self.printed = 0

    def show(self, event: RecordedEvent) -> None:
        """Print one."""
        from cli.rendering.events import event_json, event_line

        if self._output is OutputFormat.TEXT:
            console.stdout().print(event_line(event), soft_wrap=True)
        elif self._output is OutputFormat.JSONL:
            console.write_json(event_json(event))
        else:
            typer.echo("[" if self.printed == 0 else ",")
            console.write_json(event_json(event), indent=2)
        self.printed += 1

    def close(self) -> None:
        """There are no more."""
        if self._output is OutputFormat.JSON:
            typer.echo("]" if self.printed else "[]")
