"""`orderstream log verify`, on logs that somebody changed behind the triggers' back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli.exit_codes import ExitCode
from cqrs.database.sqlite import sqlite_module
from cqrs.head_line import format_head
from tests.integration.cli.installation import Outcome, orderstream
from tests.integration.cli.stored_logs import StoredLog, postgresql_log, sqlite_log
from tests.integration.postgresql import PASSWORD, Databases

CHAIN = "the hash chain is intact"
GAP = "positions have no gap"
HEAD = "the head is the last event"
TIME = "record times never run backwards"
VERSION = "versions have no gap in any aggregate"
EPOCHS = "its epochs follow each other, and the head is of the last"


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> StoredLog:
    """A log of eight events on each kind of database."""
    if request.param == "sqlite":
        return sqlite_log(tmp_path)
    found: Databases = request.getfixturevalue("postgresql")
    return postgresql_log(found)


def verify(log: StoredLog, *arguments: str) -> Outcome:
    done = orderstream("log", "verify", "--write-db-url", log.url, *arguments)
    assert PASSWORD not in done.stdout + done.stderr
    return done


def failures(log: StoredLog, *arguments: str) -> dict[str, dict[str, Any]]:
    """The checks that failed, by rule. The exit status must say so."""
    done = verify(log, "-o", "json", *arguments)
    checks = json.loads(done.stdout)
    failed = {check["rule"]: check for check in checks if check["result"] == "FAILED"}
    assert done.returncode == (ExitCode.REFUSED if failed else ExitCode.OK), done.stderr
    return failed


def test_a_right_log_passes_every_check(log: StoredLog) -> None:
    done = verify(log, "-o", "json")
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    checks = {check["rule"]: check for check in json.loads(done.stdout)}
    assert {GAP, CHAIN, VERSION, TIME, HEAD, EPOCHS} == set(checks)
    assert checks[CHAIN]["examined"] == 8
    assert "verifying: 8 of 8 events" in done.stderr
    assert "all 6 checks hold" in done.stderr


def test_an_empty_log_is_right(tmp_path: Path, postgresql: Databases) -> None:
    from tests.integration.logs import new_write_db
    from tests.integration.postgresql import text_of

    for url in (new_write_db(tmp_path), text_of(postgresql.with_schema())):
        assert failures(StoredLog(url)) == {}


FLIPPED = {
    "a byte of the data": ("UPDATE events SET data = {y} WHERE position = 5", 5),
    "a byte of a hash": ("UPDATE events SET hash = {zeros} WHERE position = 4", 4),
    "metadata": ("UPDATE events SET actor = 'eve' WHERE position = 3", 3),
    "metadata that was absent": ("UPDATE events SET traceparent = '' WHERE position = 2", 2),
    "a reason where there was none": ("UPDATE events SET reason = 'because' WHERE position = 6", 6),
    "the type": ("UPDATE events SET event_type = 'example.v1.Other' WHERE position = 7", 7),
    "the time": ("UPDATE events SET record_time = record_time + 1 WHERE position = 8", 8),
}


@pytest.mark.parametrize("what", FLIPPED)
def test_a_change_to_a_stored_event_is_found_and_its_position_named(log: StoredLog, what: str) -> None:
    statement, position = FLIPPED[what]
    literals = {"y": "'\\x79'::bytea", "zeros": f"'\\x{'00' * 32}'::bytea"}
    if log.url.startswith("sqlite"):
        literals = {"y": "x'79'", "zeros": f"x'{'00' * 32}'"}
    log.tamper(statement.format(**literals))
    found = failures(log)
    assert CHAIN in found
    assert found[CHAIN]["position"] == position
    assert set(found) <= {CHAIN, HEAD}
    told = verify(log)
    assert told.returncode == ExitCode.REFUSED
    assert f"the first bad position is {position}: " in told.stderr


def test_a_deleted_event_is_found_and_its_position_named(log: StoredLog) -> None:
    log.tamper("DELETE FROM events WHERE position = 3")
    found = failures(log)
    assert found[GAP]["problem"] == "position 2 is followed by 4"
    assert found[GAP]["position"] == 3
    assert "position 4" in found[CHAIN]["problem"]
    assert found[VERSION]["problem"] == "position 5: a is at version 3, and has no event of version 2"
    assert "the first bad position is 3: " in verify(log).stderr


def test_two_events_that_were_swapped_are_found(log: StoredLog) -> None:
    log.tamper(
        "UPDATE events SET position = 100 WHERE position = 3",
        "UPDATE events SET position = 3 WHERE position = 5",
        "UPDATE events SET position = 5 WHERE position = 100",
    )
    found = failures(log)
    assert found[CHAIN]["position"] == 3
    assert "a is at version 3, but reaches version 2 only at 5" in found[VERSION]["problem"]
    assert found[TIME]["position"] == 4


def test_an_end_that_was_cut_off_is_found_by_the_head(log: StoredLog) -> None:
    log.tamper("DELETE FROM events WHERE position > 6")
    assert failures(log)[HEAD]["problem"] == "the head says 8, the last event is at 6"


def test_an_event_behind_the_head_is_found(log: StoredLog) -> None:
    log.tamper(
        "UPDATE log_head SET (position, hash, record_time) = "
        "(SELECT position, hash, record_time FROM events WHERE position = 7)"
    )
    found = failures(log)
    assert found[HEAD]["problem"] == "the head says 7, but there is an event at 8"
    assert found[HEAD]["position"] == 8


def test_a_head_with_another_hash_than_its_event_is_found(log: StoredLog) -> None:
    log.tamper("UPDATE log_head SET hash = (SELECT hash FROM events WHERE position = 7)")
    assert found_position(failures(log), HEAD) == 8


def test_a_head_of_no_epoch_of_the_log_is_found(log: StoredLog) -> None:
    log.tamper("UPDATE log_head SET epoch = '00000000-0000-4000-8000-000000000000'")
    assert "the head is of epoch 00000000" in failures(log)[EPOCHS]["problem"]


def test_a_missing_head_is_told_with_what_to_do(log: StoredLog) -> None:
    log.tamper("DELETE FROM log_head")
    done = verify(log)
    assert done.returncode == ExitCode.REFUSED
    assert "no row in log_head" in done.stderr
    assert "orderstream backup restore" in done.stderr


def test_an_aggregate_that_changes_its_type_is_found(log: StoredLog) -> None:
    log.rewrite(lambda event: event._replace(aggregate_type="other") if event.position == 5 else event)
    assert "a is of another type than at position 3" in failures(log)[VERSION]["problem"]


def test_a_log_rewritten_as_a_whole_is_right_in_itself_and_found_by_a_head_that_was_kept(
    log: StoredLog, tmp_path: Path
) -> None:
    kept = tmp_path / "heads.txt"
    line = orderstream("log", "head", "--write-db-url", log.url).stdout
    kept.write_text(f"# kept elsewhere\n\n{line}")
    log.append([("d", 1)])
    assert failures(log, "--head-file", str(kept)) == {}
    log.rewrite(lambda event: event._replace(data=b"forged") if event.position == 2 else event)
    assert failures(log) == {}
    found = failures(log, "--head-file", str(kept))
    (check,) = found.values()
    assert check["position"] == 8
    assert "this event or one before it was changed, and the hashes computed anew" in check["problem"]
    assert failures(log, "--head", line) == found


def test_a_kept_head_says_which_events_a_restore_has_lost(log: StoredLog) -> None:
    earlier, line = log.head(), ""
    log.append([("d", 1), ("d", 2)])
    line = format_head(log.head())
    log.set_back(8)
    (check,) = failures(log, "--head", line).values()
    assert "events 9 to 10 are missing, and no restore is recorded" in check["problem"]
    log.fork(8)
    log.append([("e", 1), ("e", 2), ("e", 3)])
    (check,) = failures(log, "--head", line).values()
    assert "its epoch was left at position 8, by a restore on 20" in check["problem"]
    assert "events 9 to 10 that it stands for are not in this log" in check["problem"]
    assert failures(log, "--head", format_head(earlier)) == {}, "the older one is of what was kept"


def test_a_kept_head_of_another_log_is_told_as_such(log: StoredLog, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = sqlite_log(folder, [("z", 1)])
    (check,) = failures(log, "--head", format_head(other.head())).values()
    assert "it is of another log" in check["problem"]


def test_a_kept_head_that_was_changed_is_refused(log: StoredLog) -> None:
    line = format_head(log.head())
    for changed in (line.replace("position=8", "position=7"), line[:-1], "nonsense"):
        done = verify(log, "--head", changed)
        assert done.returncode == ExitCode.DATA
        assert "--head: " in done.stderr


def test_a_byte_flipped_in_the_file_itself_is_found(tmp_path: Path) -> None:
    marker = b"the payload of the fifth event, which nobody may change"
    log = sqlite_log(tmp_path, [("a", 1), ("b", 1), ("c", 1), ("d", 1)])
    log.append([("e", 1)], data=marker)
    log.append([("f", 1)])
    file = tmp_path / "write.db"
    _into_one_file(file)
    content = bytearray(file.read_bytes())
    content[content.index(marker) + 10] ^= 1
    file.write_bytes(content)
    assert found_position(failures(log), CHAIN) == 5


def test_a_page_of_the_file_that_cannot_be_read_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    log = sqlite_log(tmp_path, [(f"a{number}", 1) for number in range(3000)])
    file = tmp_path / "write.db"
    _into_one_file(file)
    content = bytearray(file.read_bytes())
    middle = content.index(b"event-1500") & ~0xFFF
    content[middle : middle + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    done = verify(log)
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert "cannot be read" in done.stderr or "reading the write DB failed" in done.stderr


def test_tampering_past_postgresqls_triggers_is_found(postgresql: Databases) -> None:
    """They also fire when session_replication_role switches others off; who owns the table can still disable them."""
    log = postgresql_log(postgresql)
    with psycopg.connect(log.url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute("UPDATE events SET data = 'y' WHERE position = 5")
        connection.execute("DROP TRIGGER events_append_only ON events")
        connection.execute("UPDATE events SET data = 'y' WHERE position = 5")
    assert found_position(failures(log), CHAIN) == 5


def test_a_log_is_verified_beside_a_writer(log: StoredLog) -> None:
    """Events that come meanwhile are no error."""
    from cli.auditing.log_audit import LogAudit
    from cli.auditing.log_source import open_log

    with open_log(log.url) as source:
        audit = LogAudit(source)
        log.append([("d", 1)])
        while audit.next_part(audit.head.position, 3):
            log.append([("d", log.head().position - 7)])
        assert audit.finish().position > audit.head.position == 8
        assert [check.problem for check in audit.checks() if not check.holds] == []


def found_position(found: dict[str, dict[str, Any]], rule: str) -> int:
    assert rule in found, found
    return int(found[rule]["position"])


def _into_one_file(file: Path) -> None:
    connection = sqlite_module().connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
