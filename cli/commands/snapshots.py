"""`orderstream snapshots`: the states that spare folding all events of an aggregate. They can be lost at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from cli.command import command
from cli.commands.db import WriteDbUrl
from cli.console import OutputFormat
from cli.options import DataDir, Output

app = typer.Typer(help="Look after the snapshots of aggregates.", no_args_is_help=True)

_PART = 500
"""Deleted in one transaction: on SQLite commands wait for it, some milliseconds."""


@command(
    app,
    "drop",
    "orderstream snapshots drop --data /var/lib/orderstream",
    "orderstream snapshots drop --type order --write-db-url postgresql://orderstream@db/orderstream",
)
def drop(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    aggregate_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Only those of this type of aggregate, as `order`.")
    ] = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Delete snapshots; they are taken anew as aggregates change or are loaded. Safe while servers run.

    Nothing is lost but time: until then all events of an aggregate are folded when it is loaded. Snapshots that are
    damaged, or of another release, need no dropping, for they are not used.
    """
    from contextlib import closing

    from cli.failures import Unavailable
    from cli.targets import existing_write_db
    from cli.wording import counted
    from cqrs.store.port import StoreError
    from cqrs.store.sql import SqlEventStore

    dropped = 0
    with closing(SqlEventStore(existing_write_db(data, write_db_url), readers=1)) as store:
        try:
            while part := store.drop_snapshots(aggregate_type or None, _PART):
                dropped += part
        except StoreError as error:
            raise Unavailable(f"{error}; {counted(dropped, 'snapshot')} dropped before") from error
    console.print_one(output, {"dropped": dropped}, lambda: f"{counted(dropped, 'snapshot')} dropped")
