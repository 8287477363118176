"""The write DB is lost and restored: what refuses, which command mends it, and that everything agrees afterwards."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cli.exit_codes import ExitCode
from tests.integration.cli.installation import Installation, Outcome, orderstream, up, wait_until
from tests.integration.command_server.rig import command_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HALT_SECONDS = 30.0


def register(installed: Installation, customer: str) -> str:
    """Register a customer; returns the consistency token."""
    done = installed.run(
        "customers", "register", "--id", customer, "--name", customer.title(), "--email", f"{customer}@example.org",
        "-o", "json",
    )  # fmt: skip
    assert done.returncode == ExitCode.OK, done.stderr
    return str(json.loads(done.stdout)["consistency_token"])


def place_orders(installed: Installation, customer: str, first: int, last: int) -> str:
    """Place orders o-<first> to o-<last>; returns the token of the last one."""
    token = ""
    for number in range(first, last + 1):
        done = installed.run(
            "orders", "create", "--id", f"o-{number}", "--customer", customer, "--item", "book,2,12.50", "-o", "json"
        )
        assert done.returncode == ExitCode.OK, done.stderr
        token = str(json.loads(done.stdout)["consistency_token"])
    return token


def get_order(installed: Installation, order: str, token: str) -> Outcome:
    return installed.run("orders", "get", order, "--token", token, "--max-wait", "20", "-o", "json")


def health(address: str) -> tuple[bool, str]:
    """Whether a server is ready, and what its /healthz says."""
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=5) as answer:  # noqa: S310 - loopback
            return True, answer.read().decode()
    except urllib.error.HTTPError as error:
        return False, error.read().decode()


def health_of(installed: Installation, server: str) -> tuple[bool, str]:
    return health(installed.facts["metrics"][server].removesuffix("/metrics"))


def wait_halted(installed: Installation, server: str, text: str) -> None:
    """Wait until a server's health names what differs and the command that mends it."""

    def is_halted() -> bool:
        ready, told = health_of(installed, server)
        return not ready and text in told and "orderstream stream reset" in told

    wait_until(is_halted, HALT_SECONDS, lambda: health_of(installed, server))


def reset(installed: Installation) -> dict[str, Any]:
    done = orderstream("stream", "reset", "--data", str(installed.data), "--yes", "-o", "json")
    assert done.returncode == ExitCode.OK, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_verified(installed: Installation) -> None:
    done = orderstream("verify", "--data", str(installed.data), "--wait", "60")
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr


def wait_for_commands(installed: Installation) -> None:
    """Wait until commands are taken again: the servers look every few seconds whether it is mended."""
    wait_until(lambda: health_of(installed, "command")[0], HALT_SECONDS, lambda: health_of(installed, "command"))


def test_after_the_restore_of_a_backup_all_refuse_until_a_reset_and_then_all_agree(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.db"
    with up(data) as installed:
        register(installed, "ada")
        kept_token = place_orders(installed, "ada", 1, 5)
        made = orderstream("backup", "create", str(backup), "--data", str(data))
        assert made.returncode == ExitCode.OK, made.stderr
        lost_token = place_orders(installed, "ada", 6, 9)
        assert get_order(installed, "o-9", lost_token).returncode == ExitCode.OK
        busy = orderstream("backup", "restore", str(backup), "--data", str(data), "--yes")
        assert busy.returncode == ExitCode.CONFIG, "a command server holds the write DB"
        assert "stop it first" in busy.stderr

    restored = orderstream("backup", "restore", str(backup), "--data", str(data), "--yes")
    assert restored.returncode == ExitCode.OK, restored.stderr
    assert "about 4 events will be missing" in restored.stderr
    assert "`orderstream stream reset`" in restored.stderr

    with up(data) as installed:
        wait_halted(installed, "command", "two histories")
        wait_halted(installed, "projector", "restored")
        refused = installed.run("customers", "register", "--id", "bob", "--name", "Bob", "--email", "b@example.org")
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert "LOG_HALTED" in refused.stderr
        assert orderstream("verify", "--data", str(data), "--wait", "0").returncode == ExitCode.REFUSED

        outcome = reset(installed)
        assert {finding["standing"] for finding in outcome["findings"]} == {"left branch"}
        assert_verified(installed)
        wait_for_commands(installed)
        new_token = place_orders(installed, "ada", 10, 12)
        assert get_order(installed, "o-12", new_token).returncode == ExitCode.OK
        assert get_order(installed, "o-5", new_token).returncode == ExitCode.OK
        assert get_order(installed, "o-9", new_token).returncode == ExitCode.NOT_FOUND, "it is of the lost branch"
        for token in (lost_token, kept_token):
            old = get_order(installed, "o-1", token)
            assert old.returncode == ExitCode.REFUSED
            assert "HISTORY_CHANGED" in old.stderr
        assert_verified(installed)
        assert reset(installed)["reset"] is False
    assert orderstream("verify", "--data", str(data)).returncode == ExitCode.OK


def test_a_file_copied_over_the_write_db_is_a_stream_ahead_of_the_log_until_a_reset(tmp_path: Path) -> None:
    """The old way: stop, copy the file back, start. Nothing tells the log that it is a restored one."""
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    with up(data) as installed:
        register(installed, "ada")
        place_orders(installed, "ada", 1, 3)
    shutil.copyfile(data / "write.db", copy)
    with up(data) as installed:
        lost_token = place_orders(installed, "ada", 4, 8)
        assert get_order(installed, "o-8", lost_token).returncode == ExitCode.OK
    shutil.copyfile(copy, data / "write.db")

    with up(data) as installed:
        wait_halted(installed, "command", "ends at position 9, the log at 4")
        wait_halted(installed, "projector", "")
        beside = orderstream("stream", "reset", "--data", str(data), "--yes")
        assert beside.returncode == ExitCode.CONFIG
        assert "stop it first" in beside.stderr, "a new epoch is begun while nobody appends"

    done = orderstream("stream", "reset", "--data", str(data), "--yes")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "began at position 4" in done.stderr
    assert orderstream("verify", "--data", str(data)).returncode == ExitCode.OK
    with up(data) as installed:
        new_token = place_orders(installed, "ada", 20, 26)
        assert get_order(installed, "o-26", new_token).returncode == ExitCode.OK
        old = get_order(installed, "o-1", lost_token)
        assert old.returncode == ExitCode.REFUSED
        assert "HISTORY_CHANGED" in old.stderr, "although the new log has an event at that position"
        assert_verified(installed)


def test_the_stream_of_another_log_is_refused_and_not_deleted_by_mistake(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data) as installed:
        token = register(installed, "ada")
    (data / "write.db").rename(tmp_path / "ada.db")  # and the next start makes a new, empty log
    with up(data) as installed:
        wait_halted(installed, "command", "two histories")
        mistaken = orderstream("stream", "reset", "--data", str(data), "--yes")
        assert mistaken.returncode == ExitCode.CONFLICT
        assert "may be the only copy" in " ".join(mistaken.stderr.split())
    (tmp_path / "ada.db").rename(data / "write.db")
    with up(data) as installed:
        found = installed.run("customers", "get", "ada", "--token", token, "--max-wait", "20", "--timeout", "30")
        assert found.returncode == ExitCode.OK, found.stderr
        assert_verified(installed)


def test_two_logs_on_one_stream_are_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    """A second command server, with a log of its own, that was given the broker of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()

    async def second_server(broker: str) -> None:
        async with command_server(second, nats_url=broker) as server:

            def says() -> tuple[bool, str]:
                return health(f"http://{server.metrics_address}")

            await asyncio.to_thread(wait_until, lambda: "two histories" in says()[1], HALT_SECONDS, says)
            ready, told = await asyncio.to_thread(says)
            assert not ready
            assert "orderstream stream reset" in told
            with pytest.raises(grpc.aio.AioRpcError, match="LOG_HALTED"):
                await server.register()
            reset = ("stream", "reset", "--data", str(second), "--nats-url", broker, "--yes", "--force")
            done = await asyncio.to_thread(orderstream, *reset)
            assert done.returncode == ExitCode.IN_USE
            assert "two logs on one stream" in done.stderr

    with up(first) as installed:
        register(installed, "ada")
        asyncio.run(second_server(json.loads((first / "run" / "broker.json").read_text())["url"]))
        token = place_orders(installed, "ada", 1, 2)
        assert get_order(installed, "o-2", token).returncode == ExitCode.OK
        assert_verified(installed)
