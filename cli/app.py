"""The root of the command line."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.markup import escape

from cli.command import command, examples
from cli.commands import (
    backup,
    customers,
    dashboard,
    db,
    events,
    import_file,
    log,
    order_queries,
    serve,
    snapshots,
    stream,
    up,
    verify,
)
from cli.exit_codes import ExitCode, exit_code_help

_EPILOG = f"""{
    examples(
        "orderstream up --demo",
        "orderstream dashboard",
        "orderstream orders list --status created --limit 5 -o jsonl",
    )
}

\b
Exit status:
{escape(exit_code_help())}

Data goes to stdout, everything else to stderr."""

app = typer.Typer(
    name="orderstream",
    help="Orderstream: an order service built on CQRS and event sourcing.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

command(app, "up", *up.EXAMPLES)(up.up)
command(app, "import", *import_file.EXAMPLES)(import_file.import_file)
command(app, "dashboard", *dashboard.EXAMPLES)(dashboard.dashboard)
command(app, "verify", *verify.EXAMPLES)(verify.verify)
for _name, _group, _examples in (
    ("orders", order_queries.app, ("orderstream orders get --help", "orderstream orders list --limit 5")),
    ("customers", customers.app, ("orderstream customers get cdnow-00004",)),
    ("events", events.app, ("orderstream events tail --from 1",)),
    ("serve", serve.app, ("orderstream serve command --help",)),
    ("db", db.app, ("orderstream db check",)),
    ("log", log.app, ("orderstream log verify", "orderstream log head >> heads.txt")),
    ("stream", stream.app, ("orderstream stream reset --dry-run",)),
    ("backup", backup.app, ("orderstream backup create /mnt/backups", "orderstream backup restore --help")),
    ("snapshots", snapshots.app, ("orderstream snapshots drop --type order",)),
):
    app.add_typer(_group, name=_name, epilog=examples(*_examples))


def _show_version(on: bool) -> None:
    if on:
        try:
            typer.echo(f"orderstream {version('orderstream')}")
        except PackageNotFoundError:
            typer.echo("orderstream (not installed)")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Orderstream: an order service built on CQRS and event sourcing."""


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        app(prog_name="orderstream")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - the last resort: a defect ends as a traceback and its own status
        traceback.print_exc()
        return ExitCode.INTERNAL
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
