"""`orderstream serve`: one server as a process of its own. Its settings are read by the server itself."""

from __future__ import annotations

import typer

from cli.command import command

app = typer.Typer(
    help="Run one server in the foreground. `orderstream serve NAME --help` lists its settings.", no_args_is_help=True
)


@command(
    app,
    "command",
    "orderstream serve command --listen 127.0.0.1:50051",
    "orderstream serve command --help",
    pass_on=True,
)
def serve_command(context: typer.Context) -> None:
    """Run the command server: commands, the event log, the relay to the broker."""
    from command_server.app import main

    raise typer.Exit(main(context.args))


@command(
    app, "query", "orderstream serve query --listen 127.0.0.1:50052", "orderstream serve query --help", pass_on=True
)
def serve_query(context: typer.Context) -> None:
    """Run the query server: answers from the read models."""
    from query_server.app import main

    raise typer.Exit(main(context.args))


@command(
    app,
    "projector",
    "orderstream serve projector --listen 127.0.0.1:50053",
    "orderstream serve projector --help",
    pass_on=True,
)
def serve_projector(context: typer.Context) -> None:
    """Run the projector: keeps the read models in step with the event log."""
    from projector.app import main

    raise typer.Exit(main(context.args))
