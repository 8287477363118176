"""The demo data are the published file, unchanged."""

from __future__ import annotations

import hashlib
import lzma
from datetime import UTC, datetime

from cli.demo import DEMO_FILE
from cli.importing.rows import Purchase, PurchaseFile

SHA256 = "6fae10155c0b0ba363c2c386e30f77990d22328220efd862a5edd1443420d94a"


def test_the_demo_file_is_the_published_one_byte_for_byte() -> None:
    content = lzma.decompress(DEMO_FILE.read_bytes())
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_the_demo_file_has_6919_purchases_of_2357_customers_for_244091_dollars_94() -> None:
    file = PurchaseFile(DEMO_FILE)
    purchases = [row for row in file.rows() if isinstance(row, Purchase)]
    assert file.count() == len(purchases) == 6_919
    assert len({purchase.customer for purchase in purchases}) == 2_357
    assert sum(purchase.nanos for purchase in purchases) == 244_091_940_000_000
    assert min(purchase.day for purchase in purchases) == datetime(1997, 1, 1, tzinfo=UTC)
    assert max(purchase.day for purchase in purchases) == datetime(1998, 6, 30, tzinfo=UTC)


def test_the_223_lines_that_repeat_a_customer_and_a_day_are_purchases_of_their_own() -> None:
    purchases = [row for row in PurchaseFile(DEMO_FILE).rows() if isinstance(row, Purchase)]
    assert sum(purchase.ordinal > 1 for purchase in purchases) == 223
    assert len({(purchase.customer, purchase.day, purchase.ordinal) for purchase in purchases}) == 6_919


def test_the_citation_travels_with_the_data() -> None:
    citation = DEMO_FILE.with_name("CITATION.md").read_text("utf-8")
    assert SHA256 in citation
    for word in ("Fader", "Hardie", "lifetimes", "MIT License"):
        assert word in citation
