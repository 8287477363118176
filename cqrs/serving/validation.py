"""Checks of request fields that collect every violation before they refuse.

    v = Violations()
    v.identifier("order_id", request.order_id)
    v.text("reason", request.reason, 1, 500)
    v.check()

The limits stand in the comments of the contract (proto/orderstream/**). A check costs a few hundred nanoseconds when
all is well; what it takes to describe a violation is spent only when there is one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cqrs.errors import InvalidRequest, Violation

EARLIEST_TIMESTAMP = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z in microseconds since 1970: the first moment that a Timestamp may hold."""

LATEST_TIMESTAMP = 253_402_300_799_999_999
"""The last microsecond of year 9999: the end of what a Timestamp may hold."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}").fullmatch
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
"""Unicode's category Cc, all of it."""

_NANOS_PER_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Violations:
    """Collects what is wrong with one request."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def __bool__(self) -> bool:
        """Whether a violation was found."""
        return bool(self._found)

    def add(self, field: str, description: str) -> None:
        """Note a violation. `description` says what is wrong and what would be right, and repeats no long values."""
        self._found.append(Violation(field, description))

    def text(self, field: str, value: str, min_length: int, max_length: int) -> None:
        """`value` has min_length to max_length characters (code points), none of them a control character."""
        if min_length <= len(value) <= max_length and value.isprintable():
            return
        if not value and min_length > 0:
            self.add(field, "is required")
            return
        if not min_length <= len(value) <= max_length:
            self.add(field, f"has {len(value)} characters, must have {_length(min_length, max_length)}")
        control = _CONTROL_CHARACTER(value)
        if control is not None:
            self.add(field, f"has the control character U+{ord(control[0]):04X} at index {control.start()}")

    def identifier(self, field: str, value: str) -> None:
        """`value` is an id: 1 to 64 of A-Z a-z 0-9 . _ ~ -, beginning with a letter or digit."""
        if _IDENTIFIER(value) is not None:
            return
        if not value:
            self.add(field, "is required")
        else:
            self.add(field, "must be 1 to 64 of A-Z a-z 0-9 . _ ~ -, beginning with a letter or digit")

    def integer(self, field: str, value: int, least: int, most: int) -> None:
        """`value` lies between `least` and `most`, both included."""
        if not least <= value <= most:
            self.add(field, f"is {value}, must be {least} to {most}")

    def timestamp(
        self, field: str, value: Timestamp, earliest: int = EARLIEST_TIMESTAMP, latest: int = LATEST_TIMESTAMP
    ) -> int:
        """`value` is a valid Timestamp between `earliest` and `latest` (microseconds since 1970, both included).

        Returns its microseconds since 1970 (what is finer is cut off), or `earliest` if it is none.
        """
        nanos = value.nanos
        if 0 <= nanos < _NANOS_PER_SECOND:
            micros = value.seconds * 1_000_000 + nanos // 1000
            if earliest <= micros <= latest:
                return micros
            self.add(field, f"is out of range, must lie between {_iso(earliest)} and {_iso(latest)}")
        else:
            self.add(field, f"has {nanos} nanos, must have 0 to 999999999")
        return earliest

    def duration(self, field: str, value: Duration, least_seconds: float, most_seconds: float) -> float:
        """`value` is a valid Duration between `least_seconds` and `most_seconds`, both included.

        Returns it in seconds, or `least_seconds` if it is none.
        """
        seconds, nanos = value.seconds, value.nanos
        if not -_NANOS_PER_SECOND < nanos < _NANOS_PER_SECOND or (seconds > 0 > nanos) or (seconds < 0 < nanos):
            self.add(field, "must have seconds and nanos of one sign, and nanos within ±999999999")
            return least_seconds
        total = seconds + nanos / _NANOS_PER_SECOND
        if not least_seconds <= total <= most_seconds:
            self.add(field, f"is {total:g} s, must be {least_seconds:g} to {most_seconds:g} s")
            return least_seconds
        return total

    def check(self) -> None:
        """End of the checks.

        Raises:
            InvalidRequest: there were violations; it has every one.
        """
        if self._found:
            raise InvalidRequest(self._found)


def _length(least: int, most: int) -> str:
    if least == most:
        return str(least)
    return f"at most {most}" if least == 0 else f"{least} to {most}"


def _iso(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="seconds").replace("+00:00", "Z")
