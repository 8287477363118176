"""The sales dashboard for people: tables, with bars for the revenue."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.amounts import format_money
from cli.rendering.common import freshness_banner, status_name
from cli.wording import counted
from domain.money import nanos_of
from orderstream.sales.v1.queries_pb2 import CustomerSales, GetSalesDashboardResponse, PeriodSales, StatusSales
from orderstream.types.v1.money_pb2 import Money

_BAR_CELLS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"


def dashboard(answer: GetSalesDashboardResponse) -> RenderableType:
    """The whole dashboard."""
    parts: list[RenderableType] = [
        Text("Sales", style="bold"),
        freshness_banner(answer.freshness),
        Text(f"{counted(answer.order_count, 'order')} · {counted(answer.customer_count, 'customer')}"),
    ]
    sections = (
        ("Revenue (without cancelled and returned orders)", _currencies(answer)),
        ("By status", _statuses(answer.statuses)),
        ("By month", _periods("month", answer.months)),
        ("By day", _periods("day", answer.days)),
        ("Top customers", _top_customers(answer.top_customers)),
    )
    for title, table in sections:
        if table.row_count:
            parts += [Text(f"\n{title}", style="bold"), table]
    return Group(*parts)


def bar(share: float, cells: int = _BAR_CELLS) -> str:
    """A horizontal bar of `share` (0 to 1) of `cells`, in eighths of a cell; what is not nothing has at least one."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def _currencies(answer: GetSalesDashboardResponse) -> Table:
    table = _table()
    table.add_column("currency")
    for name in ("revenue", "orders", "buyers"):
        table.add_column(name, justify="right")
    for row in answer.currencies:
        table.add_row(
            row.revenue.currency_code, _bold(format_money(row.revenue)), f"{row.orders:,}", f"{row.customers:,}"
        )
    return table


def _statuses(rows: Sequence[StatusSales]) -> Table:
    table = _table()
    table.add_column("status")
    table.add_column("orders", justify="right")
    table.add_column("value", justify="right")
    table.add_column("")
    largest = _largest([row.value for row in rows])
    for row in rows:
        table.add_row(status_name(row.status), f"{row.orders:,}", format_money(row.value), _share(row.value, largest))
    return table


def _periods(column: str, rows: Sequence[PeriodSales]) -> Table:
    table = _table()
    table.add_column(column)
    table.add_column("orders", justify="right")
    table.add_column("revenue", justify="right")
    table.add_column("")
    largest = _largest([row.revenue for row in rows])
    for row in rows:
        table.add_row(row.period, f"{row.orders:,}", format_money(row.revenue), _share(row.revenue, largest))
    return table


def _top_customers(rows: Sequence[CustomerSales]) -> Table:
    table = _table()
    table.add_column("customer", overflow="fold")
    table.add_column("name", overflow="fold")
    table.add_column("orders", justify="right")
    table.add_column("revenue", justify="right")
    table.add_column("")
    largest = _largest([row.revenue for row in rows])
    for row in rows:
        table.add_row(
            row.customer_id,
            row.customer_name,
            f"{row.orders:,}",
            format_money(row.revenue),
            _share(row.revenue, largest),
        )
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _largest(amounts: Sequence[Money]) -> dict[str, int]:
    """The largest amount of each currency: bars compare amounts of one currency only."""
    largest: dict[str, int] = {}
    for amount in amounts:
        largest[amount.currency_code] = max(largest.get(amount.currency_code, 0), nanos_of(amount))
    return largest


def _share(amount: Money, largest: dict[str, int]) -> Text:
    most = largest[amount.currency_code]
    return Text(bar(nanos_of(amount) / most if most else 0.0), style="cyan")


def _bold(text: str) -> Text:
    return Text(text, style="bold")
