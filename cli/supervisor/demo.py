"""The demo of `up`: imports the demo data through the public commands, shows the dashboard, checks its totals."""

from __future__ import annotations

import time
from typing import NamedTuple

import grpc.aio

from cli import console
from cli.amounts import format_money
from cli.calls import connected, seconds
from cli.demo import DEMO_FILE
from cli.failures import CheckFailed, ServerRefused
from cli.importing import session
from cli.importing.report import ImportReport
from cli.importing.requests import CURRENCY
from cli.importing.rows import Purchase, PurchaseFile
from cli.options import Connection
from cli.wording import counted
from domain.money import money_of, nanos_of
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.sales.v1.queries_pb2 import GetSalesDashboardRequest, GetSalesDashboardResponse
from orderstream.sales.v1.queries_pb2_grpc import SalesQueryServiceStub
from orderstream_client import decode_error

_VISIBLE_SECONDS = 60.0
"""How long the dashboard may take to show the last command of the import."""

_MAX_WAIT_SECONDS = 10.0
"""How long one query waits for it."""


class Totals(NamedTuple):
    """What there is of purchases."""

    orders: int
    customers: int
    nanos: int
    """Billionths of a dollar."""

    def __str__(self) -> str:
        revenue = format_money(money_of(CURRENCY, self.nanos))
        return f"{counted(self.orders, 'order')} of {counted(self.customers, 'customer')}, {revenue}"


async def run_demo(connection: Connection) -> GetSalesDashboardResponse:
    """Import the demo data; return the dashboard that shows all of it.

    Raises:
        CheckFailed: a row was refused, or the dashboard's totals are not the file's.
        Unavailable: the command server stayed away.
        ServerRefused: the query server stayed away, or behind.
    """
    file = session.open_file(DEMO_FILE)
    report = ImportReport()
    async with connected(connection, connection.command_server) as channel:
        await session.import_file(file, channel, report)
        console.note(session.report_line(report))
        if report.refusals:
            raise CheckFailed(
                f"refused: {counted(len(report.refusals), 'row')} of the demo data", hint="the reasons are above"
            )
        log = await EventServiceStub(channel).DescribeLog(DescribeLogRequest(), timeout=connection.timeout)
    async with connected(connection, connection.query_server) as channel:
        answer = await _dashboard(channel, connection, report.consistency_token)
    _check(answer, totals_of(file), log.position)
    return answer


def totals_of(file: PurchaseFile) -> Totals:
    """The totals, straight from the file."""
    purchases = [row for row in file.rows() if isinstance(row, Purchase)]
    return Totals(len(purchases), len({row.customer for row in purchases}), sum(row.nanos for row in purchases))


async def _dashboard(channel: grpc.aio.Channel, connection: Connection, token: str) -> GetSalesDashboardResponse:
    """The dashboard, once it shows what the token stands for."""
    request = GetSalesDashboardRequest(consistency_token=token, max_wait=seconds(_MAX_WAIT_SECONDS))
    stub = SalesQueryServiceStub(channel)
    give_up = time.monotonic() + _VISIBLE_SECONDS
    while True:
        try:
            return await stub.GetSalesDashboard(request, timeout=connection.timeout + _MAX_WAIT_SECONDS)
        except grpc.aio.AioRpcError as failure:
            error = decode_error(failure)
            if error.reason != "READ_MODEL_BEHIND" or time.monotonic() > give_up:
                raise ServerRefused(error, connection.query_server) from failure
            console.note("waiting for the read model to catch up")


def _check(answer: GetSalesDashboardResponse, expected: Totals, log_position: int) -> None:
    """Compare the dashboard with the file."""
    revenue = sum(nanos_of(row.revenue) for row in answer.currencies if row.revenue.currency_code == CURRENCY)
    shown = Totals(answer.order_count, answer.customer_count, revenue)
    if shown == expected:
        console.note(f"the dashboard shows what the file has: {expected}")
        return
    # Every customer and every purchase is one event: any more is somebody's doing beside the demo.
    beside = log_position - expected.orders - expected.customers
    if beside <= 0 or shown.orders < expected.orders or shown.customers < expected.customers:
        raise CheckFailed(
            f"the dashboard shows {shown}; the file has {expected}", hint="`orderstream verify` tells more"
        )
    others = counted(beside, "event")
    console.note(f"the file has {expected}; the dashboard also shows the effect of {others} beside the demo's")
