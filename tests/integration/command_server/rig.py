"""A command server as a process of its own, on a real write DB, seen through its ports."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from cqrs.records import EventRecord, from_wire
from orderstream.commands.v1.command_service_pb2_grpc import CommandServiceStub
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest
from orderstream.customers.v1.commands_pb2_grpc import CustomerCommandServiceStub
from orderstream.events.v1.event_service_pb2 import ReadLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream.orders.v1.commands_pb2 import CreateOrderRequest
from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from orderstream.orders.v1.order_pb2 import OrderItem
from orderstream.types.v1.money_pb2 import Money
from tests.integration.logs import new_write_db

NOWHERE = "nats://127.0.0.1:1"
"""A broker that is away: nothing listens on port 1."""

_START_SECONDS = 60


class CommandServer:
    """A running command server."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any], log: Path) -> None:
        self.process = process
        self.log = log
        self.metrics_address: str = ready["metrics"]
        self.address: str = ready["grpc"]
        self.channel = grpc.aio.insecure_channel(self.address)
        self.orders: Any = OrderCommandServiceStub(self.channel)
        self.customers: Any = CustomerCommandServiceStub(self.channel)
        self.bulk: Any = CommandServiceStub(self.channel)
        self.events: Any = EventServiceStub(self.channel)

    async def read_log(self, from_position: int = 1, max_count: int = 0) -> list[EventRecord]:
        events: list[EventRecord] = []
        async for chunk in self.events.ReadLog(ReadLogRequest(from_position=from_position, max_count=max_count)):
            events.extend(from_wire(event) for event in chunk.events)
        return events

    async def register(self, customer_id: str = "c-1") -> None:
        await self.customers.RegisterCustomer(
            RegisterCustomerRequest(customer_id=customer_id, name="Ada", email="ada@example.com")
        )

    async def http(self, path: str) -> str:
        url = f"http://{self.metrics_address}{path}"

        def get() -> str:
            with urllib.request.urlopen(url, timeout=5) as response:
                return str(response.read().decode())

        return await asyncio.to_thread(get)

    async def metric(self, name: str) -> float:
        lines = (await self.http("/metrics")).splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    async def until(self, metric: str, value: float, seconds: float = 20) -> None:
        """Wait until a metric has reached a value."""
        deadline = asyncio.get_running_loop().time() + seconds
        while await self.metric(metric) < value:
            assert asyncio.get_running_loop().time() < deadline, f"{metric} is not {value} within {seconds} s"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def command_server(
    folder: Path, *, nats_url: str = NOWHERE, failpoints: str = "", **settings: str
) -> AsyncIterator[CommandServer]:
    """A command server on the write DB in `folder`, which is made if it is not there; or on `write_db_url`."""
    url = f"sqlite:///{folder / 'write.db'}"
    if "write_db_url" not in settings and not (folder / "write.db").exists():
        new_write_db(folder)
    ready = folder / "command.json"
    ready.unlink(missing_ok=True)
    given = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "write_db_url": url,
        "nats_url": nats_url,
        "ready_file": str(ready),
        "stop_with_parent": "true",
        **settings,
    }
    environment = {f"ORDERSTREAM_{key.upper()}": value for key, value in given.items()}
    log = folder / "command.log"
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "serve", "command"),
            stdin=asyncio.subprocess.PIPE,
            stderr=sink,
            env={**os.environ, **environment, "ORDERSTREAM_FAILPOINTS": failpoints},
        )
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not ready.exists():
                assert process.returncode is None, f"ended with status {process.returncode}: {log.read_text()}"
                await asyncio.sleep(0.02)
        server = CommandServer(process, json.loads(ready.read_text()), log)
        try:
            yield server
        finally:
            await server.channel.close()
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


def order(order_id: str = "", customer_id: str = "c-1", **fields: Any) -> CreateOrderRequest:
    item = OrderItem(sku="book", name="A book", quantity=2, unit_price=Money(currency_code="USD", units=10))
    return CreateOrderRequest(order_id=order_id, customer_id=customer_id, items=[item], **fields)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())
