"""`orderstream up` and the commands against it, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from cli.exit_codes import ExitCode
from tests.integration.cli.installation import (
    END_SECONDS,
    ENVIRONMENT,
    ORDERSTREAM,
    UP_SECONDS,
    orderstream,
    processes_of,
    up,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CSV = "customer,date,cds,amount\n" + "".join(
    f"{customer:05},199701{day:02},{day},{day}.{customer % 100:02}\n" for customer in range(1, 41) for day in (3, 5, 5)
)


def test_commands_imports_and_audits_work_and_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    purchases = tmp_path / "purchases.csv"
    purchases.write_text(CSV)
    data = tmp_path / "data"
    with up(data) as system:
        # An import, and the same once more with two bad rows.
        first = system.run("import", str(purchases), "-o", "json")
        assert first.returncode == ExitCode.OK, first.stderr
        report = json.loads(first.stdout)
        assert report["customers"] == {"imported": 40, "already_there": 0, "refused": 0}
        assert report["orders"] == {"imported": 120, "already_there": 0, "refused": 0}
        purchases.write_text(CSV + "00041,19970230,1,1.00\n00001,19970103,3,9.99\n")
        second = system.run("import", str(purchases), "-o", "json")
        assert second.returncode == ExitCode.REFUSED
        assert "line 122: row refused (BAD_ROW): date '19970230' is no day" in second.stderr
        report = json.loads(second.stdout)
        assert report["customers"] == {"imported": 0, "already_there": 40, "refused": 0}
        assert report["orders"] == {"imported": 1, "already_there": 120, "refused": 1}

        # Commands, errors and queries.
        register = ("customers", "register", "--id", "ada", "--name", "Ada", "--email", "ada@example.org", "-o", "json")
        token = json.loads(system.run(*register).stdout)["consistency_token"]
        order = ("orders", "create", "--id", "o-1", "--customer", "ada", "--item", "book,2,12.50", "-o", "json")
        assert system.run(*order).returncode == ExitCode.OK
        conflict = system.run("orders", "set-status", "o-1", "confirmed", "--expected-version", "7")
        assert conflict.returncode == ExitCode.CONFLICT
        assert "VERSION_CONFLICT" in conflict.stderr
        assert "current_version: 1" in conflict.stderr
        assert "expected_version: 7" in conflict.stderr
        malformed = system.run("orders", "create", "--customer", "ada", "--item", "a,0,1", "--item", "b,-1,1")
        assert malformed.returncode == ExitCode.REFUSED
        assert "items[0].quantity" in malformed.stderr
        assert "items[1].quantity" in malformed.stderr
        assert malformed.stdout == ""
        assert system.run("orders", "get", "nope").returncode == ExitCode.NOT_FOUND
        confirmed = json.loads(system.run("orders", "set-status", "o-1", "confirmed", "-o", "json").stdout)
        shown = system.run("orders", "get", "o-1", "--token", confirmed["consistency_token"], "-o", "json")
        assert json.loads(shown.stdout)["order"]["status"] == "ORDER_STATUS_CONFIRMED"
        listed = system.run("orders", "list", "--customer", "ada", "-o", "jsonl").stdout.splitlines()
        assert [json.loads(line)["order_id"] for line in listed] == ["o-1"]
        assert "Ada" in system.run("customers", "get", "ada", "--token", token).stdout
        tail = system.run("events", "tail", "--from", "1", "--no-follow", "-o", "jsonl").stdout.splitlines()
        assert [int(json.loads(line)["position"]) for line in tail] == list(range(1, 165))
        dashboard = json.loads(system.run("dashboard", "-o", "json").stdout)
        assert dashboard["order_count"] == "122"
        wait_until(  # a heartbeat may be late on a busy machine, and the dashboard then says so
            lambda: "current: as of log position 164" in system.run("dashboard").stdout,
            20,
            lambda: system.run("dashboard").stdout,
        )

        # What is in use is refused, and says by whom and what to change.
        again = orderstream("up", "--data", str(data), "--any-port")
        assert again.returncode == ExitCode.IN_USE
        assert f"process {system.process.pid}" in again.stderr
        port = system.facts["addresses"]["query"].rpartition(":")[2]
        taken = orderstream("up", "--data", str(tmp_path / "other"), "--command-port", port)
        assert taken.returncode == ExitCode.IN_USE
        assert f"port {port} is in use" in taken.stderr
        assert "--command-port PORT" in taken.stderr

        assert orderstream("db", "check", "--data", str(data)).returncode == ExitCode.OK
        audit = orderstream("verify", "--data", str(data))
        assert audit.returncode == ExitCode.OK, audit.stdout + audit.stderr

        system.process.send_signal(signal.SIGTERM)
        assert system.process.wait(END_SECONDS) == ExitCode.OK
    assert processes_of(data) == []
    assert list((data / "run").iterdir()) == []

    # The audit of a stopped system; then one that was tampered with, each in its own way.
    audit = orderstream("verify", "--data", str(data), "-o", "jsonl")
    assert audit.returncode == ExitCode.OK, audit.stdout + audit.stderr
    assert processes_of(data) == []
    _tamper(data, "read.db", "UPDATE orders SET total_units = 99 WHERE order_id = 'o-1'")
    assert (
        "row o-1, column total_units: 99 instead of 25"
        in _failures(data)["table orders equals a fresh fold of the log"]
    )
    _tamper(data, "write.db", "UPDATE events SET actor = 'x' WHERE position = 5")
    failures = _failures(data)
    assert "position 5" in failures["the hash chain is intact"]
    assert "position 5: the payload is not the event of the log" in failures["equals the log, to the byte"]


def test_what_is_killed_starts_again_in_its_place_and_kill_9_of_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    data = tmp_path / "data"
    parts = {
        "command": "command server",
        "projector": "projector server",
        "query": "query server",
        "broker": "nats-server",
    }
    with up(data) as system:
        before = {part: json.loads((data / "run" / f"{part}.json").read_text()) for part in parts}
        for part, name in parts.items():
            os.kill(before[part]["pid"], signal.SIGKILL)
            system.wait_for_note(f"{name} ended (killed by SIGKILL); restarting it in 0.5 s")
        for name in parts.values():
            system.wait_for_note(f"{name} is up again")
        for part, old in before.items():
            new = json.loads((data / "run" / f"{part}.json").read_text())
            assert new["pid"] != old["pid"]
            assert {**new, "pid": 0} == {**old, "pid": 0}
        done = system.run(
            "customers", "register", "--id", "ada", "--name", "Ada", "--email", "a@b.example", "-o", "json"
        )
        assert done.returncode == ExitCode.OK, done.stderr
        token = json.loads(done.stdout)["consistency_token"]
        shown = system.run("customers", "get", "ada", "--token", token, "--max-wait", "30")
        assert shown.returncode == ExitCode.OK, shown.stderr
        system.process.kill()
        system.process.wait()
        wait_until(lambda: not processes_of(data), END_SECONDS, lambda: str(processes_of(data)))
    with up(data) as system:
        assert system.run("customers", "get", "ada").returncode == ExitCode.OK
    assert processes_of(data) == []


def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(
        [*ORDERSTREAM, "up", "--data", str(data), "--any-port"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    # The broker is up, the servers are not yet.
    wait_until((data / "run" / "broker.json").exists, UP_SECONDS, lambda: "the broker is not up")
    process.send_signal(signal.SIGINT)
    _, notes = process.communicate(timeout=END_SECONDS)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "SIGINT: stopping" in notes
    assert processes_of(data) == []


def _tamper(data: Path, database: str, *statements: str) -> None:
    from cqrs.database.sqlite import sqlite_module

    connection = sqlite_module().connect(data / database)
    # Events are append-only by triggers: whoever tampers takes them away first.
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _failures(data: Path) -> dict[str, str]:
    audit = orderstream("verify", "--data", str(data), "-o", "json")
    assert audit.returncode == ExitCode.REFUSED, audit.stdout + audit.stderr
    return {check["rule"]: check["problem"] for check in json.loads(audit.stdout) if check["result"] == "FAILED"}
