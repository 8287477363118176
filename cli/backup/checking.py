"""Verifies a backup: its file against the manifest, and its log as `orderstream log verify` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.auditing.checks import Check, first_position
from cli.auditing.log_audit import LogAudit
from cli.auditing.log_source import open_log
from cli.backup.files import digest_of, integrity_problem, read_revision, still
from cli.backup.manifest import Manifest
from cli.failures import CheckFailed
from cli.progress import progress
from cqrs.head_line import format_head
from cqrs.records import LogHead

_PART_EVENTS = 2000


def verify_backup(file: Path, manifest: Manifest, kept: Sequence[LogHead] = ()) -> list[Check]:
    """All checks of a backup. Changes nothing, not even beside the file.

    Raises:
        CheckFailed: the file is no write DB.
    """
    size, digest = file.stat().st_size, digest_of(file)
    of_file = [
        Check(
            "file",
            "its size is that of the manifest",
            1,
            "" if size == manifest.size else f"it has {size:,} bytes, the manifest says {manifest.size:,}",
        ),
        Check(
            "file",
            "its SHA-256 is that of the manifest",
            1,
            "" if digest == manifest.sha256 else f"it is {digest}, the manifest says {manifest.sha256}",
        ),
    ]
    if any(not check.holds for check in of_file):
        return of_file  # what is in it, if it can be read at all, is not what was backed up
    revision = read_revision(file)
    head, checks = audit_copy(file, kept)
    return [
        *of_file,
        Check(
            "file",
            "its log and schema are those of the manifest",
            1,
            _difference(manifest, head, revision),
            f"schema revision {revision}",
        ),
        *checks,
    ]


def audit_copy(file: Path, kept: Sequence[LogHead] = ()) -> tuple[LogHead, list[Check]]:
    """The log's head in a database that nobody writes, and the checks of database and log.

    Raises:
        CheckFailed: it cannot be read.
    """
    problem = integrity_problem(file)
    with open_log(still(file), any_revision=True) as source, progress("verifying", "events") as display:
        audit = LogAudit(source, kept)
        display.expect(audit.head.position)
        while rows := audit.next_part(audit.head.position, _PART_EVENTS):
            display.advance(len(rows))
        audit.finish()
        return audit.head, [Check("file", "SQLite finds it sound", 1, problem), *audit.checks()]


def refuse_failed(checks: Sequence[Check], so: str) -> None:
    """Make sure that all checks hold.

    Raises:
        CheckFailed: one does not.
    """
    failed = [check for check in checks if not check.holds]
    if failed:
        first = first_position(failed) or failed[0]
        raise CheckFailed(f"{so}: {first.subject}: {first.problem or first.unchecked}")


def _difference(manifest: Manifest, head: LogHead, revision: str) -> str:
    if head != manifest.head:
        return f"its head is {format_head(head)}, the manifest says {format_head(manifest.head)}"
    if revision != manifest.schema_revision:
        return f"its schema is at revision {revision}, the manifest says {manifest.schema_revision}"
    return ""
