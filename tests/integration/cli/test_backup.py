"""`orderstream backup`: copies of a write DB that is in use, their verification, and what a restore leaves behind."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cli.exit_codes import ExitCode
from cqrs.database.sqlite import sqlite_module
from cqrs.head_line import format_head, parse_head
from cqrs.store.ownership import own_write_db
from tests.integration.cli.installation import Outcome, orderstream
from tests.integration.cli.stored_logs import StoredLog, sqlite_log
from tests.integration.postgresql import PASSWORD


@pytest.fixture
def log(tmp_path: Path) -> StoredLog:
    """A write DB of eight events in a data directory."""
    data = tmp_path / "data"
    data.mkdir()
    return sqlite_log(data)


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


def backup(log: StoredLog, to: Path) -> dict[str, Any]:
    done = orderstream("backup", "create", str(to), "--write-db-url", log.url, "-o", "json")
    assert done.returncode == ExitCode.OK, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def restore(log: StoredLog, file: Path, *arguments: str) -> Outcome:
    return orderstream("backup", "restore", str(file), "--write-db-url", log.url, "--yes", *arguments)


def failures(file: Path, *arguments: str) -> dict[str, str]:
    done = orderstream("backup", "verify", str(file), "-o", "json", *arguments)
    failed = {check["rule"]: check["problem"] for check in json.loads(done.stdout) if check["result"] == "FAILED"}
    assert done.returncode == (ExitCode.REFUSED if failed else ExitCode.OK), done.stderr
    return failed


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_backup_is_the_log_and_a_manifest_beside_it_says_what_it_is(log: StoredLog, backups: Path) -> None:
    facts = backup(log, backups / "one.db")
    file = backups / "one.db"
    assert names(backups) == {"one.db", "one.db.manifest.json"}
    manifest = json.loads((backups / "one.db.manifest.json").read_text())
    assert {"file": str(file), **manifest} == facts
    assert parse_head(manifest["head"]) == log.head()
    assert manifest["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0, "it has customers' data in it"
    assert failures(file) == {}
    assert names(backups) == {"one.db", "one.db.manifest.json"}, "verifying leaves nothing beside it"
    assert failures(file, "--head", format_head(log.head())) == {}


def test_into_a_folder_a_backup_gets_a_name_of_its_own(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    assert file.parent == backups
    assert file.name.startswith("orderstream-20")
    assert failures(file) == {}


def test_a_backup_beside_a_writer_is_of_one_moment_and_ends(log: StoredLog, backups: Path) -> None:
    log.append([(f"bulk-{number}", 1) for number in range(3000)], data=bytes(1000))
    stop, appended = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            appended[0] += 1
            log.append([("busy", appended[0])])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        facts = backup(log, backups / "busy.db")
    finally:
        stop.set()
        writer.join()
    assert appended[0] > 1, "there was writing beside it"
    assert 3008 <= parse_head(facts["head"]).position <= log.head().position
    assert failures(backups / "busy.db") == {}


def test_nothing_is_overwritten(log: StoredLog, backups: Path) -> None:
    backup(log, backups / "one.db")
    before = (backups / "one.db").read_bytes()
    log.append([("d", 1)])
    again = orderstream("backup", "create", str(backups / "one.db"), "--write-db-url", log.url)
    assert again.returncode == ExitCode.REFUSED
    assert "exists already, and nothing is overwritten" in again.stderr
    (backups / "two.db.manifest.json").write_text("{}")
    assert orderstream("backup", "create", str(backups / "two.db"), "--write-db-url", log.url).returncode == 1
    assert (backups / "one.db").read_bytes() == before
    assert names(backups) == {"one.db", "one.db.manifest.json", "two.db.manifest.json"}


def test_of_a_log_that_is_not_right_no_backup_is_made(log: StoredLog, backups: Path) -> None:
    log.tamper("UPDATE events SET data = x'79' WHERE position = 5")
    done = orderstream("backup", "create", str(backups / "one.db"), "--write-db-url", log.url)
    assert done.returncode == ExitCode.REFUSED
    assert "position 5" in done.stderr
    assert names(backups) == set()


@pytest.mark.parametrize("at", [100, -100])
def test_a_byte_that_changed_in_a_backup_is_found(log: StoredLog, backups: Path, at: int) -> None:
    file = Path(backup(log, backups)["file"])
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    assert "the manifest says" in failures(file)["its SHA-256 is that of the manifest"]
    refused = restore(log, file)
    assert refused.returncode == ExitCode.REFUSED
    assert "nothing was changed, for the backup does not verify" in refused.stderr


def test_a_backup_that_was_cut_off_is_found(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    os.truncate(file, file.stat().st_size - 4096)
    assert "its size is that of the manifest" in failures(file)


def test_a_manifest_of_another_backup_is_found(log: StoredLog, backups: Path) -> None:
    first = Path(backup(log, backups / "one.db")["file"])
    manifest = backups / "one.db.manifest.json"
    content = json.loads(manifest.read_text())
    log.append([("d", 1)])
    content["head"] = format_head(log.head())
    manifest.write_text(json.dumps(content))
    assert "its head is orderstream-head-1" in failures(first)["its log and schema are those of the manifest"]


def test_a_backup_without_its_manifest_is_told_as_one_that_was_not_completed(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    (backups / f"{file.name}.manifest.json").unlink()
    done = orderstream("backup", "verify", str(file))
    assert done.returncode == ExitCode.NO_INPUT
    assert "the backup was not completed" in done.stderr
    (backups / f"{file.name}.manifest.json").write_text("[]")
    assert orderstream("backup", "verify", str(file)).returncode == ExitCode.DATA
    assert orderstream("backup", "verify", str(backups / "none.db")).returncode == ExitCode.NO_INPUT


def test_a_restore_begins_a_new_epoch_at_the_backups_end_and_keeps_what_it_replaces(
    log: StoredLog, backups: Path
) -> None:
    old = log.head()
    file = Path(backup(log, backups)["file"])
    log.append([("d", 1), ("d", 2)])
    lost = log.head()
    done = restore(log, file, "-o", "json")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "about 2 events will be missing" in done.stderr
    assert "orderstream stream reset" in done.stderr
    facts = json.loads(done.stdout)
    head = log.head()
    assert head == old._replace(epoch=facts["epoch"])
    assert facts["epoch"] != old.epoch
    assert facts["fork_position"] == 8
    assert parse_head(facts["head"]) == head
    replaced = StoredLog(f"sqlite:///{facts['replaced']}")
    assert replaced.head() == lost
    verified = orderstream("log", "verify", "--write-db-url", log.url, "--head", format_head(lost), "-o", "json")
    failed = [check["problem"] for check in json.loads(verified.stdout) if check["result"] == "FAILED"]
    assert len(failed) == 1
    assert "left at position 8, by a restore" in failed[0]
    assert failures(file) == {}, "the backup is what it was"


def test_what_has_no_loss_to_show_begins_a_new_epoch_too(log: StoredLog, backups: Path) -> None:
    """As on another machine, or when nothing was appended since: who can know?"""
    file = Path(backup(log, backups)["file"])
    before = log.head()
    assert restore(log, file).returncode == ExitCode.OK
    assert log.head().epoch != before.epoch
    elsewhere = StoredLog(f"sqlite:///{backups.parent / 'new' / 'write.db'}")
    done = restore(elsewhere, file)
    assert done.returncode == ExitCode.OK, done.stderr
    assert elsewhere.head().epoch not in (before.epoch, log.head().epoch)


def test_epochs_that_were_lost_are_still_known_after_a_second_restore(log: StoredLog, backups: Path) -> None:
    early = Path(backup(log, backups / "early.db")["file"])
    log.append([("d", 1)])
    late = Path(backup(log, backups / "late.db")["file"])
    assert restore(log, late).returncode == ExitCode.OK
    log.append([("e", 1), ("e", 2)])
    second = log.head()
    assert restore(log, early).returncode == ExitCode.OK
    log.append([("f", 1), ("f", 2), ("f", 3)])
    verified = orderstream("log", "verify", "--write-db-url", log.url, "--head", format_head(second), "-o", "json")
    failed = [check for check in json.loads(verified.stdout) if check["result"] == "FAILED"]
    assert [check["position"] for check in failed] == [9], verified.stdout
    assert "its epoch was left at position 8, by a restore" in failed[0]["problem"]


def test_while_a_command_server_holds_the_write_db_nothing_is_restored(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    before = log.head()
    with own_write_db(log.url):
        done = restore(log, file)
    assert done.returncode == ExitCode.CONFIG
    assert f"held by another command server (process {os.getpid()})" in done.stderr
    assert "stop it first" in done.stderr
    assert log.head() == before
    assert not [name for name in names(backups.parent / "data") if "restoring" in name or "replaced" in name]


def test_without_yes_and_without_a_terminal_nothing_is_restored(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    before = log.head()
    done = orderstream("backup", "restore", str(file), "--write-db-url", log.url)
    assert done.returncode == ExitCode.REFUSED
    assert "--yes" in done.stderr
    assert log.head() == before


def test_a_write_db_that_cannot_be_read_any_more_is_replaced_and_kept(log: StoredLog, backups: Path) -> None:
    file = Path(backup(log, backups)["file"])
    write_db = backups.parent / "data" / "write.db"
    write_db.write_bytes(b"no database " * 1000)
    Path(f"{write_db}-wal").write_bytes(b"of nothing")
    done = restore(log, file, "-o", "json")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "cannot be read, and is kept aside" in done.stderr
    replaced = Path(json.loads(done.stdout)["replaced"])
    assert replaced.read_bytes().startswith(b"no database")
    assert Path(f"{replaced}-wal").read_bytes() == b"of nothing"
    assert log.head().position == 8


def test_a_backup_of_an_older_release_is_verified_and_brought_to_this_schema(
    log: StoredLog, backups: Path, tmp_path: Path
) -> None:
    # As it was before this release: no tables and indexes that came since, and the revision of then.
    raw = sqlite_module().connect(tmp_path / "data" / "write.db")
    raw.execute("DROP TABLE leases")
    raw.execute("UPDATE alembic_version SET version_num = '0004'")
    raw.commit()
    raw.close()
    facts = backup(log, backups / "older.db")
    assert facts["schema_revision"] == "0004"
    assert failures(backups / "older.db") == {}
    assert restore(log, backups / "older.db").returncode == ExitCode.OK
    checked = orderstream("log", "verify", "--write-db-url", log.url)
    assert checked.returncode == ExitCode.OK, checked.stderr


def test_on_postgresql_backups_are_told_to_be_made_otherwise_and_no_password_is_shown(tmp_path: Path) -> None:
    url = "postgresql://ada:super%2Fsecret%3Apass%40word@db.invalid/orders"
    for arguments in (("create", str(tmp_path / "x.db")), ("restore", str(tmp_path / "x.db"), "--yes")):
        done = orderstream("backup", *arguments, "--write-db-url", url)
        assert done.returncode == ExitCode.CONFIG
        assert "pg_basebackup" in done.stderr
        assert "postgresql://ada:***@db.invalid/orders" in done.stderr
        assert PASSWORD not in done.stderr
        assert "super" not in done.stderr
