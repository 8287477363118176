"""A log's head as a line of text, to be kept where whoever can change the log cannot reach.

Only that shows a log that was rewritten as a whole, with all hashes computed anew. The line ends with a checksum
against typing and copying errors; it is no signature.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from cqrs.records import LogHead

_FORMAT = "orderstream-head-1"
_FIELDS = ("epoch", "position", "hash", "time")
_CHECK_DIGITS = 8
_START = datetime(1970, 1, 1, tzinfo=UTC)


class MalformedHeadLine(ValueError):
    """The text is no line that `format_head` made, or not as it made it."""


def format_head(head: LogHead) -> str:
    """The head as one line, without a line end.

    Such as `orderstream-head-1 epoch=6f1c… position=12 hash=9a0b… time=2026-11-24T05:04:52.000001Z check=1f00ba44`.
    """
    text = " ".join(
        (
            _FORMAT,
            f"epoch={head.epoch}",
            f"position={head.position}",
            f"hash={head.hash.hex()}",
            f"time={time_text(head.record_time)}",
        )
    )
    return f"{text} check={_check(text)}"


def parse_head(line: str) -> LogHead:
    """The inverse of `format_head`; white space around it does not matter.

    Raises:
        MalformedHeadLine: it is none, or was changed.
    """
    text, _, check = " ".join(line.split()).rpartition(" check=")
    form, *parts = text.split(" ")
    if form != _FORMAT or [part.partition("=")[0] for part in parts] != list(_FIELDS):
        raise MalformedHeadLine(f"not a line of `orderstream log head`: {line.strip()[:200]!r}")
    if check != _check(text):
        raise MalformedHeadLine("the line was changed since `orderstream log head` printed it: its checksum is wrong")
    epoch, position, digest, time = (part.partition("=")[2] for part in parts)
    try:
        moment = datetime.fromisoformat(time)
        return LogHead(
            int(position), bytes.fromhex(digest), str(UUID(epoch)), (moment - _START) // timedelta(microseconds=1)
        )
    except (ValueError, TypeError) as error:
        raise MalformedHeadLine(f"not a line of `orderstream log head`: {error}") from error


def time_text(micros: int) -> str:
    """Microseconds since 1970 as RFC 3339 has it, always with six digits."""
    return (_START + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _check(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_CHECK_DIGITS]
