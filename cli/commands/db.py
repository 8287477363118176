"""`orderstream db`: the schemas of the two databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.command import command
from cli.console import OutputFormat
from cli.exit_codes import ExitCode
from cli.options import DataDir, Output

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="Look after the schemas of the write DB and the read DB.", no_args_is_help=True)

WriteDbUrl = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="ORDERSTREAM_WRITE_DB_URL",
        show_default="write.db in DIR",
        help="The write DB: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.",
    ),
]
ReadDbUrl = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="ORDERSTREAM_READ_DB_URL",
        show_default="read.db in DIR",
        help="The read DB, as sqlite:///FILE.",
    ),
]


@command(app, "upgrade", "orderstream db upgrade", "orderstream db upgrade --data /var/lib/orderstream")
def upgrade(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Bring both databases to the schema of this release; makes them if there are none. Safe to repeat."""
    from cli.databases import databases, upgrade_all

    results = upgrade_all(databases(data, write_db_url, read_db_url))
    rows = [
        {"database": result.name, "url": result.url, "before": result.before, "after": result.after}
        for result in results
    ]
    console.print_many(output, rows, lambda: _table(("database", "url", "before", "after"), rows))


@command(app, "check", "orderstream db check", "orderstream db check -o json")
def check(
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    read_db_url: ReadDbUrl = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Look whether both databases have the schema of this release. Changes nothing."""
    from cli.databases import check_all, databases

    results = check_all(databases(data, write_db_url, read_db_url))
    rows = [
        {"database": result.name, "url": result.url, "revision": result.after, "problem": result.problem}
        for result in results
    ]
    console.print_many(output, rows, lambda: _table(("database", "url", "revision", "problem"), rows))
    if any(result.problem for result in results):
        raise typer.Exit(ExitCode.CONFIG)


@command(
    app,
    "grant",
    "orderstream db grant --role orderstream_server --write-db-url postgresql://owner@db/orderstream",
    "orderstream db grant --role auditor --read-only --write-db-url postgresql://owner@db/orderstream",
)
def grant(
    role: Annotated[str, typer.Option("--role", metavar="NAME", help="The role, which must exist.")],
    read_only: Annotated[
        bool, typer.Option("--read-only", help="For who only reads the log: `log verify`, `log export`, `log head`.")
    ] = False,
    data: DataDir = Path("data"),
    write_db_url: WriteDbUrl = "",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Give a role of PostgreSQL what the command server needs of the write DB, and no more.

    It can insert and read events, and never change or remove one. To be run as the owner of the tables, after `db
    upgrade` and again after each upgrade. Refused if the role had more rights by other ways: as a superuser or owner,
    or by a grant to PUBLIC.
    """
    from cli.databases import databases, grant_role

    database, _ = databases(data, write_db_url)
    rows = [{"table": each.table, "rights": ", ".join(each.rights)} for each in grant_role(database, role, read_only)]
    console.print_many(output, rows, lambda: _table(("table", "rights"), rows))


def _table(columns: tuple[str, ...], rows: Sequence[Mapping[str, str | None]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(row[column] or "-" for column in columns))
    return table
