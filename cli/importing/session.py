"""An import with everything around it: the file, the connection, the progress, the summary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from rich import box
from rich.console import RenderableType
from rich.table import Table

from cli.amounts import format_money
from cli.exit_codes import ExitCode
from cli.failures import NotUsable
from cli.importing.importer import DEFAULT_IN_FLIGHT, Importer
from cli.importing.report import ImportReport, Refusal
from cli.importing.requests import CURRENCY
from cli.importing.rows import NotPurchases, PurchaseFile
from cli.progress import progress
from cli.wording import counted
from domain.money import money_of


def open_file(path: Path) -> PurchaseFile:
    """The file to import.

    Raises:
        NotUsable: it cannot be read (exit status NO_INPUT), or is in no known format (DATA).
    """
    try:
        return PurchaseFile(path)
    except NotPurchases as error:
        raise NotUsable(str(error), exit_code=ExitCode.DATA) from error
    except OSError as error:
        raise NotUsable(f"{path} cannot be read: {error.strerror}") from error


async def import_file(
    file: PurchaseFile,
    channel: grpc.aio.Channel,
    report: ImportReport,
    *,
    in_flight: int = DEFAULT_IN_FLIGHT,
    patience_seconds: float = 60.0,
) -> None:
    """Import `file`, with progress on stderr and a line for each refused row. `report` grows while it runs.

    Raises:
        NotUsable: the file turns out to be damaged.
        Unavailable: the command server was away for longer than the patience.
    """
    try:
        rows = await asyncio.to_thread(file.count)
        with progress(f"importing {file.path.name}", "rows") as display:
            display.expect(rows)
            importer = Importer(
                channel,
                report,
                in_flight=in_flight,
                patience_seconds=patience_seconds,
                on_row=display.advance,
                on_refusal=lambda refusal: display.say(refusal_line(refusal)),
            )
            await importer.run(file.rows())
    except NotPurchases as error:
        raise NotUsable(str(error), exit_code=ExitCode.DATA) from error


def refusal_line(refusal: Refusal) -> str:
    """One refused row, for people."""
    return f"line {refusal.line}: {refusal.subject} refused ({refusal.reason}): {refusal.message}"


def report_json(report: ImportReport) -> dict[str, Any]:
    """The summary as JSON."""
    return {
        "customers": vars(report.customers),
        "orders": vars(report.orders),
        "purchases_total": format_money(money_of(CURRENCY, report.nanos)),
        "refusals": [refusal._asdict() for refusal in report.refusals],
        "retries": report.retries,
        "seconds": round(report.seconds, 3),
        "commands_per_second": round(report.commands_per_second, 1),
        "consistency_token": report.consistency_token,
    }


def report_text(report: ImportReport) -> RenderableType:
    """The summary for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "imported", "already there", "refused"):
        table.add_column(column, justify="right" if column else "left")
    for name, tally in (("customers", report.customers), ("orders", report.orders)):
        table.add_row(name, f"{tally.imported:,}", f"{tally.already_there:,}", f"{tally.refused:,}")
    return table


def report_line(report: ImportReport) -> str:
    """The summary in a sentence."""
    tallies: Sequence[tuple[str, Any]] = (("customer", report.customers), ("order", report.orders))
    refused = sum(tally.refused for _, tally in tallies)
    if not any(tally.done for _, tally in tallies):
        return "nothing was imported: no row was answered for"
    if not refused and not any(tally.imported for _, tally in tallies):
        counts = " and ".join(counted(tally.already_there, name) for name, tally in tallies)
        return f"all is already there: {counts}; nothing was changed"
    parts = ", ".join(
        f"{counted(tally.imported, name)} imported ({tally.already_there:,} already there)" for name, tally in tallies
    )
    return (
        f"{parts}, {refused:,} refused, in {report.seconds:.1f} s ({report.commands_per_second:,.0f} commands a second)"
    )
