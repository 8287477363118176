"""Reading purchases from files."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.importing.rows import LONGEST_LINE, BadRow, NotPurchases, Purchase, PurchaseFile

NEW_YEAR = datetime(1997, 1, 1, tzinfo=UTC)


def read(path: Path, content: bytes | str) -> list[Purchase | BadRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    file = PurchaseFile(path)
    rows = list(file.rows())
    assert file.count() == len(rows)
    return rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "purchases"


@pytest.mark.parametrize(
    "content",
    [
        " 00004 0001 19970101  2   29.33\r\n",
        "00004 19970101 2 29.33",
        " customer_id  date number_of_cds  dollar_value\n 00004 19970101 2 29.33\n",
        "customer,date,cds,amount\n00004,19970101,2,29.33\n",
        'note,"amount",quantity,date,customer_id\n"a, b",29.33,2,1997-01-01, 00004\n',
        "\ufeffcustomer,date,cds,amount\n00004,19970101,2,29.33\n",
    ],
)
def test_a_purchase_is_read_from_a_cdnow_line_and_from_csv(file: Path, content: str) -> None:
    (row,) = read(file, content)
    assert isinstance(row, Purchase)
    assert row[1:] == ("00004", NEW_YEAR, 2, 29_330_000_000, 1)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_compressed_file_is_read_as_a_plain_one(file: Path, compress: Callable[[bytes], bytes]) -> None:
    (row,) = read(file, compress(b"00004 19970101 2 29.33\n"))
    assert isinstance(row, Purchase)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("00005 19970230 2 29.33", "date '19970230' is no day"),
        ("00005 1997011 2 29.33", "date '1997011' is no day"),
        ("00005 19970101 0 29.33", "number of CDs '0'"),
        ("00005 19970101 -2 29.33", "number of CDs '-2'"),
        ("00005 19970101 2 -29.33", "'-29.33' is not an amount"),
        ("00005 19970101 2 29.33.1", "'29.33.1' is not an amount"),
        ("00005 19970101 2 1e9", "'1e9' is not an amount"),
        ("00005 19970101 2 NaN", "'NaN' is not an amount"),
        ("0ü005 19970101 2 29.33", "customer '0ü005'"),
        ("00005 19970101 2", "3 fields instead of 4 or 5"),
        ("a b c d e f", "6 fields instead of 4 or 5"),
        ("x" * (LONGEST_LINE * 3), "longer than 4096 characters"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_others_are_read(file: Path, line: str, why: str) -> None:
    first, bad, last = read(file, f"00004 19970101 2 29.33\n\n{line}\n00006 19970101 2 29.33\n")
    assert isinstance(first, Purchase)
    assert isinstance(last, Purchase)
    assert isinstance(bad, BadRow)
    assert (bad.line, last.line) == (3, 4)
    assert why in bad.why


def test_bytes_that_are_no_text_make_one_bad_row(file: Path) -> None:
    good, bad = read(file, b"00004 19970101 2 29.33\n\xff\x00\xfe 19970101 2 29.33\n")
    assert isinstance(good, Purchase)
    assert isinstance(bad, BadRow)


def test_correcting_a_bad_row_does_not_renumber_the_purchases_of_its_day(file: Path) -> None:
    _, after_bad = read(file, "00004 19970101 0 1.00\n00004 19970101 2 2.00\n")
    _, after_good = read(file, "00004 19970101 1 1.00\n00004 19970101 2 2.00\n")
    assert after_bad == after_good


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no rows"),
        (b"\n \n", "has no rows"),
        (b"\x7fELF\x02\x01\x01\x00" * 100, "neither a CDNOW file"),
        (b"{}\n", "neither a CDNOW file"),
        (b"name,price\nbook,12.50\n", "neither a CDNOW file"),
        (gzip.compress(b"00004 19970101 2 29.33\n" * 100, mtime=0)[:-20], "damaged"),
        (lzma.compress(b"00004 19970101 2 29.33\n" * 100)[:40], "damaged"),
        (b"\xfd7zXZ\x00garbage", "damaged"),
        (b"\x1f\x8bgarbage", "damaged"),
    ],
)
def test_a_file_that_is_not_one_is_refused_with_the_reason(file: Path, content: bytes, why: str) -> None:
    with pytest.raises(NotPurchases, match=why):
        read(file, content)


@given(content=st.binary(max_size=300))
def test_no_content_at_all_does_anything_but_rows_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    try:
        read(tmp_path_factory.mktemp("any") / "file", b"00004 19970101 2 29.33\n" + content)
    except NotPurchases:
        pytest.fail("its first line is a purchase")
