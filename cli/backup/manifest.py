"""What is known of a backup, in a file beside it. It is written last: a backup without one was not completed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from cli.exit_codes import ExitCode
from cli.failures import CliError, NotUsable
from cqrs.head_line import MalformedHeadLine, format_head, parse_head, time_text
from cqrs.records import LogHead

_FORMAT = "orderstream-backup-1"
_SUFFIX = ".manifest.json"


class Manifest(NamedTuple):
    """A backup's properties."""

    head: LogHead
    """Where its log ends."""
    size: int
    """Of its file, in bytes."""
    sha256: str
    """Of its file, hexadecimal."""
    schema_revision: str
    """Of the write DB's schema."""
    create_time: int
    """Microseconds since 1970."""

    def as_json(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "format": _FORMAT,
            "head": format_head(self.head),
            "bytes": self.size,
            "sha256": self.sha256,
            "schema_revision": self.schema_revision,
            "create_time": time_text(self.create_time),
        }


def manifest_file(backup: Path) -> Path:
    """Where the manifest of a backup is."""
    return backup.with_name(backup.name + _SUFFIX)


def manifest_text(manifest: Manifest) -> str:
    """The content of the file."""
    return json.dumps(manifest.as_json(), indent=2) + "\n"


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        NotUsable: backup or manifest does not exist or cannot be read.
        CliError: it is no manifest.
    """
    if not backup.is_file():
        raise NotUsable(f"{backup} does not exist, or is no file")
    file = manifest_file(backup)
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise CliError(
                f"{file} has the format {content['format']!r}, which this release does not know",
                exit_code=ExitCode.DATA,
            )
        return Manifest(
            parse_head(content["head"]),
            int(content["bytes"]),
            str(content["sha256"]),
            str(content["schema_revision"]),
            0,
        )._replace(create_time=_micros(content["create_time"]))
    except FileNotFoundError as error:
        raise NotUsable(
            f"{file} does not exist: the backup was not completed, or its manifest was not copied with it",
            hint="`orderstream log verify --write-db-url sqlite:///FILE`, on a copy, tells what is in it",
        ) from error
    except OSError as error:
        raise NotUsable(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, MalformedHeadLine) as error:
        raise CliError(f"{file} is no manifest of a backup: {error!r}", exit_code=ExitCode.DATA) from error


def _micros(text: str) -> int:
    from datetime import UTC, datetime, timedelta

    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
