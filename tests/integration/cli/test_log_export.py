"""`orderstream log export` and `log head`."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest

from cli.exit_codes import ExitCode
from cqrs.head_line import format_head, parse_head
from cqrs.records import EventRecord, LogHead, chain_hash
from orderstream.customers.v1.events_pb2 import CustomerRegistered
from tests.integration.cli.installation import Outcome, orderstream
from tests.integration.cli.stored_logs import StoredLog, postgresql_log, sqlite_log
from tests.integration.postgresql import Databases

MESSAGE = CustomerRegistered(name="Ada", email="ada@example.org")
TYPE = CustomerRegistered.DESCRIPTOR.full_name
UNKNOWN_FIELD = b"\xfa\x3f\x03new"
"""Field 1023, of a release to come."""


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> StoredLog:
    if request.param == "sqlite":
        return sqlite_log(tmp_path)
    found: Databases = request.getfixturevalue("postgresql")
    return postgresql_log(found)


def export(log: StoredLog, *arguments: str) -> Outcome:
    done = orderstream("log", "export", "--write-db-url", log.url, *arguments)
    assert done.returncode == ExitCode.OK, done.stderr
    return done


def test_an_export_has_each_event_on_a_line_and_its_parts_put_together_are_the_whole(log: StoredLog) -> None:
    whole = export(log)
    lines = [json.loads(line) for line in whole.stdout.splitlines()]
    assert [line["position"] for line in lines] == list(range(1, 9))
    assert "exported 8 events; go on with --from 9" in whole.stderr
    first, rest = export(log, "--to", "3"), export(log, "--from", "4")
    assert "go on with --from 4" in first.stderr
    assert first.stdout + rest.stdout == whole.stdout
    assert export(log).stdout == whole.stdout, "the same bytes each time"
    assert export(log, "--from", "9").stdout == ""
    assert export(log, "--from", "7", "--to", "99").stdout == "\n".join(whole.stdout.splitlines()[6:]) + "\n"


def test_from_an_export_the_chain_can_be_computed_again(log: StoredLog) -> None:
    previous = bytes(32)
    for line in map(json.loads, export(log).stdout.splitlines()):
        event = EventRecord(
            line["position"], line["event_id"], line["aggregate_type"], line["aggregate_id"], line["version"],
            line["event_type"], 1_700_000_000_000_000 + line["position"], line.get("request_id"),
            line.get("correlation_id"), line.get("causation_id"), line.get("actor"), line.get("traceparent"),
            b64decode(line["data"]), bytes.fromhex(line["hash"]), line.get("reason"),
        )  # fmt: skip
        assert line["record_time"] == f"2023-11-14T22:13:20.{line['position']:06}Z"
        assert chain_hash(previous, event) == event.hash
        previous = event.hash


def test_a_known_message_is_readable_and_what_it_does_not_say_is_kept_as_bytes(log: StoredLog) -> None:
    known, more = MESSAGE.SerializeToString(), MESSAGE.SerializeToString() + UNKNOWN_FIELD

    def as_registered(event: EventRecord) -> EventRecord:
        data = {1: known, 2: more, 3: b"\xff"}.get(event.position)
        return event if data is None else event._replace(event_type=TYPE, data=data)

    log.rewrite(as_registered)
    first, second, third, fourth = (json.loads(line) for line in export(log, "--to", "4").stdout.splitlines())
    assert first["event"] == second["event"] == {"name": "Ada", "email": "ada@example.org"}
    assert "data" not in first
    assert b64decode(second["data"]) == more
    assert "event" not in third
    assert b64decode(third["data"]) == b"\xff"
    assert b64decode(fourth["data"]) == b"x", "of a type that this release does not know"


def test_an_export_of_a_log_with_a_gap_ends_there_and_says_so(log: StoredLog) -> None:
    log.tamper("DELETE FROM events WHERE position = 4")
    done = orderstream("log", "export", "--write-db-url", log.url)
    assert done.returncode == ExitCode.REFUSED
    assert "no event at position 4" in done.stderr
    assert "orderstream log verify" in done.stderr


def test_the_head_is_a_line_to_keep_and_reads_back(log: StoredLog) -> None:
    done = orderstream("log", "head", "--write-db-url", log.url)
    assert done.stdout.count("\n") == 1
    assert parse_head(done.stdout) == log.head()
    assert parse_head(f"  {done.stdout}\r\n") == log.head()
    parts = json.loads(orderstream("log", "head", "--write-db-url", log.url, "-o", "json").stdout)
    assert parts["position"] == 8
    assert parts["line"] + "\n" == done.stdout
    assert bytes.fromhex(parts["hash"]) == log.head().hash


def test_heads_of_all_kinds_survive_the_way_through_a_line() -> None:
    for head in (
        LogHead(0, bytes(32), "1ca075b1-3da5-43c5-977d-9847f60c7a62", 0),
        LogHead(2**62, b"\xff" * 32, "1ca075b1-3da5-43c5-977d-9847f60c7a62", 253_402_300_799_999_999),
    ):
        assert parse_head(format_head(head)) == head


def test_what_is_no_write_db_is_told_in_a_line(tmp_path: Path) -> None:
    missing = orderstream("log", "head", "--data", str(tmp_path))
    assert missing.returncode == ExitCode.NO_INPUT
    assert "does not exist" in missing.stderr
    (tmp_path / "write.db").write_bytes(b"no database " * 1000)
    wrong = orderstream("log", "head", "--data", str(tmp_path))
    assert wrong.returncode == ExitCode.REFUSED
    assert "file is not a database" in wrong.stderr
    (tmp_path / "write.db").write_bytes(b"")
    empty = orderstream("log", "head", "--data", str(tmp_path))
    assert empty.returncode == ExitCode.CONFIG
    assert "orderstream db upgrade" in empty.stderr
