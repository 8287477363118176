"""`orderstream events`: the event log as it grows."""

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


@command(
    app,
    "tail",
    "orderstream events tail",
    "orderstream events tail --from 1 --no-follow -o jsonl",
    "orderstream events tail --aggregate order-1 --no-follow",
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
    aggregate: Annotated[str, typer.Option(metavar="ID", help="Only this order's or customer's events.")] = "",
    follow: Annotated[bool, typer.Option(help="Go on and show events as they come, until Ctrl-C.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most this many events.")] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show events of the log in order, a line each, and those to come."""
    import asyncio

    from cli.following import Position, follow_events
    from cli.rendering.events import event_json, event_line

    printed = 0

    def show(event: RecordedEvent) -> None:
        nonlocal printed
        if output is OutputFormat.TEXT:
            console.stdout().print(event_line(event), soft_wrap=True)
        elif output is OutputFormat.JSONL:
            console.write_json(event_json(event))
        else:
            typer.echo("[" if printed == 0 else ",")
            console.write_json(event_json(event), indent=2)
        printed += 1

    try:
        asyncio.run(follow_events(connection, Position(aggregate, start), show, follow=follow, limit=limit))
    except KeyboardInterrupt:
        # How following is meant to end.
        if not follow:
            raise
    finally:
        if output is OutputFormat.JSON:
            typer.echo("]" if printed else "[]")
