"""Reading purchases from a file: lines as CDNOW has them, or CSV with a header; plain, or compressed with gzip or xz.

A file is read as a stream. What is kept of it is one count per customer and day, to number the purchases of one day;
of a large file mostly on disk.
"""

from __future__ import annotations

import csv
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, cast

from cli.amounts import parse_nanos
from cli.importing.spilling_map import SpillingMap

LONGEST_LINE = 4096
"""Characters. A longer line is a bad row."""

_LINES_LOOKED_AT = 20
"""Lines that a file has to prove its format."""

_CDNOW_LINE = re.compile(r"\s*\S+(\s+\S+)?\s+[0-9]{8}\s+[0-9]+\s+[0-9]+(\.[0-9]+)?\s*", re.ASCII)
_CUSTOMER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,39}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,7}", re.ASCII)
_MOST_CDS = 1_000_000

CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    "customer": ("customer", "customer_id"),
    "date": ("date",),
    "cds": ("cds", "quantity", "number_of_cds"),
    "amount": ("amount", "dollars", "dollar_value"),
}
"""The columns a CSV file needs, each with the names it may have in the header. Others are ignored."""


class NotPurchases(Exception):
    """The file is in no format that can be imported. The message says why."""


class Purchase(NamedTuple):
    """A row of the file: so many CDs for one amount."""

    line: int
    """Its line in the file, from 1."""
    customer: str
    """The customer, as the file names them."""
    day: datetime
    """00:00 UTC of the day of the purchase."""
    cds: int
    nanos: int
    """The amount paid in billionths of a dollar."""
    ordinal: int
    """1 for the customer's first row of that day in the file, 2 for the second, …"""


class BadRow(NamedTuple):
    """A row that cannot be read."""

    line: int
    """Its line in the file, from 1."""
    why: str
    """What is wrong with it."""


class PurchaseFile:
    """A file of purchases.

    Raises:
        NotPurchases: the file is empty, damaged, or in no known format. Reading its rows can raise it too.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            head = [line for line in islice(_lines(file), _LINES_LOOKED_AT) if line.strip()]
        if not head:
            raise NotPurchases(f"{path} has no rows")
        self._columns = _csv_columns(head[0])
        """Where the CSV columns are; None for CDNOW lines."""
        # CDNOW's master file names its columns, the sample does not.
        self._has_header = self._columns is not None or "date" in head[0].lower().split()
        if self._columns is None and not any(_CDNOW_LINE.fullmatch(line) for line in head):
            raise NotPurchases(
                f"{path} is neither a CDNOW file (lines such as `00004 0001 19970101 2 29.33`) nor CSV with a header "
                f"that has {', '.join(CSV_COLUMNS)}: its first line is {head[0].strip()[:60]!r}"
            )

    def count(self) -> int:
        """How many rows there are, good and bad."""
        with self._open() as file:
            rows = sum(1 for line in _lines(file) if line.strip())
        return rows - (1 if self._has_header else 0)

    def rows(self) -> Iterator[Purchase | BadRow]:
        """The rows in the order of the file."""
        header_passed = not self._has_header
        with self._open() as file, closing(SpillingMap()) as seen:
            for number, line in enumerate(_lines(file), start=1):
                if not line.strip():
                    continue
                if not header_passed:
                    header_passed = True
                    continue
                try:
                    yield self._purchase(number, line, seen)
                except ValueError as error:
                    yield BadRow(number, str(error))

    def _purchase(self, number: int, line: str, seen: SpillingMap) -> Purchase:
        customer, date, cds, amount = self._fields(line)
        if not _CUSTOMER.fullmatch(customer):
            raise ValueError(
                f"customer {customer[:60]!r} is not 1 to 40 of A-Z a-z 0-9 . _ ~ -, beginning with a letter or digit"
            )
        day = _day(date)
        # Counted before the rest is looked at: correcting a bad row later must not renumber the customer's others.
        key = f"{customer} {day:%Y%m%d}"
        ordinal = (seen.get(key) or 0) + 1
        seen.put(key, ordinal)
        if not _COUNT.fullmatch(cds) or not 1 <= int(cds) <= _MOST_CDS:
            raise ValueError(f"number of CDs {cds[:40]!r} is not from 1 to {_MOST_CDS:,}")
        return Purchase(number, customer, day, int(cds), parse_nanos(amount), ordinal)

    def _fields(self, line: str) -> Sequence[str]:
        if len(line) > LONGEST_LINE:
            raise ValueError(f"longer than {LONGEST_LINE} characters")
        if self._columns is None:
            fields = line.split()
            # The sample has the customer's number in the cohort and in the sample; the master file the former only.
            if len(fields) == 5:
                del fields[1]
            if len(fields) != 4:
                raise ValueError(
                    f"{len(fields)} fields instead of 4 or 5: customer, [number in sample], date, CDs, dollars"
                )
            return fields
        try:
            values = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ValueError(f"not CSV: {error}") from error
        if len(values) <= max(self._columns):
            raise ValueError(f"{len(values)} fields, the header has more")
        return [values[column].strip() for column in self._columns]

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        with self.path.open("rb") as raw:
            magic = raw.read(6)
            raw.seek(0)
            stream: IO[bytes] = raw
            if magic == b"\xfd7zXZ\x00":
                stream = lzma.open(raw)  # noqa: SIM115 - reads `raw`, which is closed here
            elif magic[:2] == b"\x1f\x8b":
                stream = cast(IO[bytes], gzip.open(raw))  # noqa: SIM115 - as above
            try:
                # What is no UTF-8 shows as escapes, and makes its row a bad one instead of ending the file.
                yield TextIOWrapper(stream, encoding="utf-8-sig", errors="backslashreplace")
            except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise NotPurchases(f"{self.path} is damaged: {error}") from error


def _lines(file: IO[str]) -> Iterator[str]:
    """The lines of `file`, each cut after what tells that it is too long: memory stays bounded."""
    while line := file.readline(LONGEST_LINE + 1):
        rest = line
        while rest and not rest.endswith("\n"):
            rest = file.readline(LONGEST_LINE)
        yield line.rstrip("\n")


def _csv_columns(header: str) -> tuple[int, ...] | None:
    names = [name.strip().strip('"').lower() for name in header.split(",")]
    places = [next((names.index(name) for name in known if name in names), None) for known in CSV_COLUMNS.values()]
    found = tuple(place for place in places if place is not None)
    return found if len(found) == len(CSV_COLUMNS) else None


def _day(text: str) -> datetime:
    for form in ("%Y%m%d", "%Y-%m-%d"):
        # strptime is lenient about digits: the length tells the two forms apart.
        if len(text) == (8 if form == "%Y%m%d" else 10):
            try:
                return datetime.strptime(text, form).replace(tzinfo=UTC)
            except ValueError:
                break
    raise ValueError(f"date {text[:40]!r} is no day, as in 19970101 or 1997-01-01")
