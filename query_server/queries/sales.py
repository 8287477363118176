"""Queries about sales, from rows that the projection keeps summed up."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, NamedTuple

import grpc
import grpc.aio
import sqlalchemy as sa

from cqrs.serving.validation import Violations
from orderstream.sales.v1.queries_pb2 import (
    CurrencySales,
    CustomerSales,
    GetSalesDashboardRequest,
    GetSalesDashboardResponse,
    PeriodSales,
    StatusSales,
)
from orderstream.types.v1.money_pb2 import Money
from query_server.view import View, need_of
from readmodel.sales import (
    CHANGE_KEY,
    sales_by_currency,
    sales_by_customer,
    sales_by_day,
    sales_by_month,
    sales_by_status,
    sales_customers,
    sales_summary,
)

SERVICE = "orderstream.sales.v1.SalesQueryService"

MOST_DAYS = 366
DEFAULT_DAYS = 31
MOST_MONTHS = 120
"""The newest ones with an order: an answer stays small however old the shop."""
MOST_TOP_CUSTOMERS = 100
DEFAULT_TOP_CUSTOMERS = 10

_CURRENCY = re.compile(r"[A-Z]{3}").fullmatch
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch

_Context = grpc.aio.ServicerContext[Any, Any]


class Wanted(NamedTuple):
    """Which part of the dashboard."""

    currency: str
    """Empty: all."""
    day_from: date | None
    """None: DEFAULT_DAYS before the end."""
    day_to: date | None
    """The first day that is left out. None: up to the newest day with an order."""
    top_customers: int
    """Per currency."""


class SalesQueries:
    """SalesQueryService. Its methods answer with serialised responses."""

    def __init__(self, view: View) -> None:
        self._view = view

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for `GrpcServer.add_generic`."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetSalesDashboard": grpc.unary_unary_rpc_method_handler(
                    self.get_sales_dashboard, GetSalesDashboardRequest.FromString
                )
            },
        )

    async def get_sales_dashboard(self, request: GetSalesDashboardRequest, context: _Context) -> bytes:
        """The dashboard as serialised GetSalesDashboardResponse.

        Raises:
            ServiceError: INVALID_REQUEST, and what `View.cached` raises.
        """
        v = Violations()
        wanted = _wanted(v, request)
        need = need_of(v, request, context)
        v.check()
        key = f"{CHANGE_KEY}?{wanted.currency}&{wanted.day_from}&{wanted.day_to}&{wanted.top_customers}"
        answer = await self._view.cached(
            key, need, lambda connection, generation: _read(connection, generation, wanted)
        )
        body, tail = answer or (b"", b"")
        return body + tail


def _wanted(v: Violations, request: GetSalesDashboardRequest) -> Wanted:
    currency = request.currency_code
    if currency and _CURRENCY(currency) is None:
        v.add("currency_code", "must be three upper-case letters, such as USD")
    day_from = _day(v, "day_from", request.day_from)
    day_to = _day(v, "day_to", request.day_to)
    if day_from is not None and day_to is not None and day_from > day_to:
        v.add("day_to", "is before day_from")
    top = request.top_customers if request.HasField("top_customers") else DEFAULT_TOP_CUSTOMERS
    v.integer("top_customers", top, 0, MOST_TOP_CUSTOMERS)
    return Wanted(currency, day_from, day_to, top)


def _day(v: Violations, field: str, text: str) -> date | None:
    if not text:
        return None
    try:
        if _DAY(text) is not None:
            return date.fromisoformat(text)
    except ValueError:  # the form is right, the day is none
        v.add(field, "is no day of the calendar")
        return None
    v.add(field, 'must be a day as "YYYY-MM-DD"')
    return None


def _read(connection: sa.Connection, generation: int, wanted: Wanted) -> bytes:
    response = GetSalesDashboardResponse()
    for row in _figures(connection, sales_by_currency, generation, wanted, "currency"):
        response.currencies.append(CurrencySales(orders=row.orders, revenue=_money(row), customers=row.customers))
        response.top_customers.extend(_top_customers(connection, generation, row.currency, wanted.top_customers))
    for row in _figures(connection, sales_by_status, generation, wanted, "status", "currency"):
        response.statuses.append(StatusSales(status=row.status, orders=row.orders, value=_money(row)))
    for row in _months(connection, generation, wanted):
        response.months.append(PeriodSales(period=row.month, orders=row.orders, revenue=_money(row)))
    for row in _days(connection, generation, wanted):
        response.days.append(PeriodSales(period=row.day, orders=row.orders, revenue=_money(row)))
    summary = connection.execute(_SUMMARY, {"generation": generation}).first()
    if summary is not None:
        response.customer_count = summary.customer_count
    # The sum over the statuses is right for one currency, too.
    response.order_count = sum(row.orders for row in response.statuses)
    return response.SerializeToString()


def _figures(
    connection: sa.Connection, table: sa.Table, generation: int, wanted: Wanted, *order: str
) -> list[sa.Row[Any]]:
    """The rows of a summed-up table which count anything, in this order."""
    statement = (
        sa.select(table).where(*_counted(table, generation, wanted)).order_by(*(table.c[column] for column in order))
    )
    return list(connection.execute(statement))


def _counted(table: sa.Table, generation: int, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    """What makes a row of a summed-up table part of the answer."""
    here = [table.c.generation == generation, table.c.orders > 0]
    if wanted.currency:
        here.append(table.c.currency == wanted.currency)
    return here


def _months(connection: sa.Connection, generation: int, wanted: Wanted) -> list[sa.Row[Any]]:
    """The newest MOST_MONTHS months."""
    table = sales_by_month
    here = _counted(table, generation, wanted)
    first = sa.select(table.c.month).where(*here).distinct().order_by(table.c.month.desc()).limit(1)
    oldest_shown = sa.func.coalesce(first.offset(MOST_MONTHS - 1).scalar_subquery(), "")
    statement = sa.select(table).where(*here, table.c.month >= oldest_shown).order_by(table.c.month, table.c.currency)
    return list(connection.execute(statement))


def _days(connection: sa.Connection, generation: int, wanted: Wanted) -> list[sa.Row[Any]]:
    """The days of the window: DEFAULT_DAYS unless `day_from` says otherwise, and the newest MOST_DAYS at most."""
    table = sales_by_day
    here = _counted(table, generation, wanted)
    end = wanted.day_to
    if end is None:
        newest = connection.execute(
            sa.select(table.c.day).where(*here).order_by(table.c.day.desc()).limit(1)
        ).scalar_one_or_none()
        if newest is None:
            return []
        last = date.fromisoformat(newest)
    else:
        last = _minus(end, 1)
    begin = _minus(last, DEFAULT_DAYS - 1) if wanted.day_from is None else wanted.day_from
    begin = max(begin, _minus(last, MOST_DAYS - 1))
    if end is not None and begin >= end:
        return []
    statement = (
        sa.select(table)
        .where(*here, table.c.day >= begin.isoformat(), table.c.day <= last.isoformat())
        .order_by(table.c.day, table.c.currency)
    )
    return list(connection.execute(statement))


def _minus(day: date, days: int) -> date:
    """`days` earlier; the calendar begins with year 1."""
    return date.fromordinal(max(day.toordinal() - days, 1))


_SUMMARY = sa.select(sales_summary.c.customer_count).where(sales_summary.c.generation == sa.bindparam("generation"))
"""What is counted over everything."""

TOP_CUSTOMERS = (
    sa.select(
        sales_by_customer.c.customer_id,
        sales_by_customer.c.currency,
        sales_by_customer.c.orders,
        sales_by_customer.c.units,
        sales_by_customer.c.nanos,
        sa.func.coalesce(sales_customers.c.name, "").label("name"),
    )
    .join_from(
        sales_by_customer,
        sales_customers,
        sa.and_(
            sales_customers.c.generation == sales_by_customer.c.generation,
            sales_customers.c.customer_id == sales_by_customer.c.customer_id,
        ),
        isouter=True,
    )
    .where(
        sales_by_customer.c.generation == sa.bindparam("generation"),
        sales_by_customer.c.currency == sa.bindparam("currency"),
        sales_by_customer.c.orders > 0,
    )
    .order_by(
        sales_by_customer.c.units.desc(), sales_by_customer.c.nanos.desc(), sales_by_customer.c.customer_id.desc()
    )
    .limit(sa.bindparam("limit"))
)
"""The customers with the highest revenue in a currency: the end of an index, so equal ones come in its order, too."""


def _top_customers(connection: sa.Connection, generation: int, currency: str, limit: int) -> list[CustomerSales]:
    if not limit:
        return []
    rows = connection.execute(TOP_CUSTOMERS, {"generation": generation, "currency": currency, "limit": limit})
    return [
        CustomerSales(customer_id=row.customer_id, customer_name=row.name, orders=row.orders, revenue=_money(row))
        for row in rows
    ]


def _money(row: sa.Row[*tuple[Any, ...]]) -> Money:
    return Money(currency_code=row.currency, units=row.units, nanos=row.nanos)
