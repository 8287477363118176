"""What `up` prints once everything is up: the dashboard, the addresses, commands to copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from cli.console import to_json
from cli.rendering.dashboard import dashboard as render_dashboard
from cli.supervisor.supervisor import Supervisor
from orderstream.sales.v1.queries_pb2 import GetSalesDashboardResponse


def introduction(supervisor: Supervisor, dashboard: GetSalesDashboardResponse | None) -> Iterator[RenderableType]:
    """For people."""
    if dashboard is not None:
        yield render_dashboard(dashboard)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, (address, metrics) in addresses(supervisor).items():
        table.add_row(name, address, metrics)
    yield table
    yield ""
    yield "To try in another terminal:"
    for command in commands_to_copy(supervisor):
        yield escape(f"  {command}")
    at = {name: address.grpc for name, address in supervisor.addresses.items()}
    yield f"  {_orderstream()} dashboard --command-server {at['command']} --query-server {at['query']}"
    yield ""


def introduction_json(supervisor: Supervisor, dashboard: GetSalesDashboardResponse | None) -> dict[str, Any]:
    """For programs."""
    return {
        "addresses": {name: address for name, (address, _) in addresses(supervisor).items()},
        "metrics": {name: metrics for name, (_, metrics) in addresses(supervisor).items() if metrics},
        "commands": commands_to_copy(supervisor),
        "dashboard": to_json(dashboard) if dashboard is not None else None,
    }


def addresses(supervisor: Supervisor) -> dict[str, tuple[str, str]]:
    """Where each part listens, and where its metrics are (empty: nowhere)."""
    found = {
        name: (at.grpc, f"http://{at.metrics}/metrics" if at.metrics else "")
        for name, at in supervisor.addresses.items()
    }
    return {**found, "nats": (supervisor.nats_url, "")}


def commands_to_copy(supervisor: Supervisor) -> list[str]:
    """Three commands that work by reflection, without the contract's files: a query, a command and the dashboard."""
    command = supervisor.addresses["command"].grpc
    query = supervisor.addresses["query"].grpc
    buf = f"{_buf()} curl --protocol grpc --http2-prior-knowledge"
    customer = '{"customer_id": "ada", "name": "Ada", "email": "ada@example.com", "request_id": "ada-1"}'
    return [
        f"""grpcurl -plaintext -d '{{"page_size": 2}}' {query} orderstream.orders.v1.OrderQueryService/ListOrders""",
        f"{buf} -d '{customer}' http://{command}/orderstream.customers.v1.CustomerCommandService/RegisterCustomer",
        f"""{buf} -d '{{"top_customers": 3}}' http://{query}/orderstream.sales.v1.SalesQueryService/GetSalesDashboard""",
    ]


def _buf() -> str:
    """How to call buf from here."""
    return _tool("buf")


def _orderstream() -> str:
    """How to call this program from here."""
    return _tool("orderstream")


def _tool(name: str) -> str:
    beside = Path(sys.prefix) / "bin" / name
    if shutil.which(name) or not beside.exists():
        return name
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
