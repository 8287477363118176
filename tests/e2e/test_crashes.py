"""Parts are killed in the middle of an import, again and again; broker, stream and read DB are taken away."""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from cqrs.broker.connection import connect_broker
from tests.integration.cli.installation import ENVIRONMENT, ORDERSTREAM, Installation, orderstream, up, wait_until

DEMO = Path(__file__).parents[2] / "cli" / "demo" / "cdnow_sample.txt.xz"
PURCHASES = 2000
"""Of the demo's 6,919: enough to be killed in the middle of, and soon done."""


class Purchases:
    """The file that is imported, and what is in it."""

    def __init__(self, folder: Path) -> None:
        lines = lzma.decompress(DEMO.read_bytes()).decode().splitlines()[:PURCHASES]
        self.file = folder / "purchases.txt"
        self.file.write_text("\n".join(lines) + "\n")
        self.customers = len({line.split()[1] for line in lines})
        self.events = PURCHASES + self.customers


@pytest.fixture
def purchases(tmp_path: Path) -> Purchases:
    return Purchases(tmp_path)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def part(installed: Installation, name: str, *, other_than: int = 0) -> dict[str, Any]:
    """What a part's run file says, once it is there and of a process that is not `other_than`."""
    file, found = installed.data / "run" / f"{name}.json", dict[str, Any]()

    def is_there() -> bool:
        with suppress(FileNotFoundError):
            found.update(json.loads(file.read_text()))
        return bool(found) and found["pid"] != other_than

    wait_until(is_there, 40, lambda: f"{name} does not come up: {installed.notes.read_text()}")
    return found


def log_position(installed: Installation) -> int:
    connection = sqlite3.connect(installed.data / "write.db")
    try:
        return int(connection.execute("SELECT position FROM log_head").fetchone()[0])
    finally:
        connection.close()


def dashboard(installed: Installation) -> dict[str, Any]:
    done = installed.run("dashboard", "-o", "json")
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def wait_for_dashboard(installed: Installation, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    shown: list[dict[str, Any]] = []

    def holds() -> bool:
        shown.append(dashboard(installed))
        return condition(shown[-1])

    wait_until(holds, 60, lambda: shown[-1])
    return shown[-1]


def wait_until_whole(installed: Installation, purchases: Purchases) -> None:
    """The dashboard shows all purchases, and says that it is current."""

    def is_whole(shown: dict[str, Any]) -> bool:
        freshness = shown["freshness"]
        current = freshness["state"] == "FRESHNESS_STATE_CURRENT"
        return bool(current and freshness.get("as_of_position") == str(purchases.events))

    assert wait_for_dashboard(installed, is_whole)["order_count"] == str(PURCHASES)


def start_import(installed: Installation, purchases: Purchases) -> Popen[str]:
    addresses = installed.facts["addresses"]
    return Popen(
        [*ORDERSTREAM, "import", str(purchases.file), "--command-server", addresses["command"], "--patience", "60",
         "--in-flight", "8"],  # slowly enough to be killed in the middle
        stdout=PIPE, stderr=PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


def import_all(installed: Installation, purchases: Purchases) -> str:
    importing = start_import(installed, purchases)
    _, told = importing.communicate(timeout=150)
    assert importing.returncode == 0, told
    return told


def assert_verified(data: Path) -> None:
    done = orderstream("verify", "--data", str(data), "--wait", "60")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["command", "projector", "broker"])
def test_a_part_killed_again_and_again_during_an_import_costs_nothing_and_doubles_nothing(
    tmp_path: Path, purchases: Purchases, name: str
) -> None:
    with up(tmp_path / "data") as installed:
        importing = start_import(installed, purchases)
        pauses = random.Random(name)
        wait_until(lambda: log_position(installed) > 300, 40, lambda: "the import does not begin")
        assert log_position(installed) < purchases.events, "the first kill must come in the middle"
        for _ in range(3):
            victim = part(installed, name)["pid"]
            os.kill(victim, signal.SIGKILL)
            part(installed, name, other_than=victim)
            time.sleep(pauses.uniform(0.1, 0.6))
        _, told = importing.communicate(timeout=150)
        assert importing.returncode == 0, told
        again = import_all(installed, purchases)
        assert (
            f"already there: {purchases.customers:,} customers and {PURCHASES:,} orders; nothing was changed" in again
        )
        wait_until_whole(installed, purchases)
        assert_verified(installed.data)
    assert_verified(tmp_path / "data")


def test_without_a_broker_commands_are_accepted_and_the_dashboard_says_that_it_is_stale(
    tmp_path: Path, purchases: Purchases
) -> None:
    with up(tmp_path / "data") as installed:
        broker = part(installed, "broker")["pid"]
        os.kill(broker, signal.SIGSTOP)
        try:
            import_all(installed, purchases)
            shown = wait_for_dashboard(installed, lambda each: each["freshness"]["state"] == "FRESHNESS_STATE_UNKNOWN")
            assert "order_count" not in shown or shown["order_count"] == "0"
            assert float(shown["freshness"]["stale_for"].rstrip("s")) > 0
        finally:
            os.kill(broker, signal.SIGCONT)
        wait_until_whole(installed, purchases)


def test_a_deleted_stream_is_filled_again_and_a_deleted_read_db_is_rebuilt(
    tmp_path: Path, purchases: Purchases
) -> None:
    data = tmp_path / "data"
    with up(data) as installed:
        import_all(installed, purchases)
        wait_until_whole(installed, purchases)
        asyncio.run(_with_broker(part(installed, "broker")["url"], _delete_stream))
        assert_verified(data)
    for file in data.glob("read.db*"):
        file.unlink()
    with up(data) as installed:
        wait_until_whole(installed, purchases)
        assert_verified(data)


async def _with_broker(url: str, work: Callable[[Any], Awaitable[None]]) -> None:
    client = await connect_broker(url, "operator")
    try:
        await work(client)
    finally:
        await client.close()


async def _delete_stream(client: Any) -> None:
    await client.jetstream().delete_stream("ORDERSTREAM")
