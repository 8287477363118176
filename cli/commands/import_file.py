"""`orderstream import`: purchases from a file, through the public commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from cli.console import OutputFormat
from cli.exit_codes import ExitCode
from cli.options import Connection, Output, with_connection

EXAMPLES = (
    "orderstream import CDNOW_master.txt",
    "orderstream import purchases.csv.gz -o json   # header: customer,date,cds,amount",
)


@with_connection
def import_file(
    connection: Connection,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CDNOW lines, or CSV with a header; plain, or compressed with gzip or xz."),
    ],
    in_flight: Annotated[int, typer.Option(min=1, max=8000, metavar="N", help="Commands under way at a time.")] = 512,
    patience: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long to go on trying while the server is away or overloaded."),
    ] = 60.0,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Import purchases as customers and orders. Safe to repeat: what is there already stays as it is, and is counted.

    A CDNOW line is "customer [number in sample] date CDs dollars"; CSV needs the columns customer, date, cds and
    amount (US dollars). A row that is bad or refused is named by its line on stderr, and the import goes on; the exit
    status is then 1. A file in neither format ends with 65, one that cannot be read with 66. While the server
    restarts, commands are sent again with the same request ids.
    """
    import asyncio

    from cli.calls import connected
    from cli.importing import session
    from cli.importing.report import ImportReport
    from cqrs.serving.process import new_event_loop

    purchases = session.open_file(file)
    report = ImportReport()

    async def run() -> None:
        async with connected(connection, connection.command_server) as channel:
            await session.import_file(purchases, channel, report, in_flight=in_flight, patience_seconds=patience)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run())
    finally:
        # Interrupted or failed: what was done until then is worth knowing.
        console.print_one(output, session.report_json(report), lambda: session.report_text(report))
        console.note(session.report_line(report))
    if report.refusals:
        raise typer.Exit(ExitCode.REFUSED)
