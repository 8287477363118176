"""Amounts of money between text, Decimal and the contract's Money. Exact: nothing is rounded, no float."""

from __future__ import annotations

import re
from decimal import Decimal

from domain.money import NANOS_PER_UNIT, money_of, nanos_of
from orderstream.types.v1.money_pb2 import Money

_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


def parse_nanos(text: str) -> int:
    """A decimal number that is not negative, as billionths: "12.50" is 12,500,000,000.

    Raises:
        ValueError: the text is not 1 to 12 digits, optionally with a point and 1 to 9 digits.
    """
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an amount such as 12.50")
    units, _, fraction = text.partition(".")
    return int(units) * NANOS_PER_UNIT + int(fraction.ljust(9, "0"))


def money(text: str, currency_code: str) -> Money:
    """`text` as `parse_nanos` reads it, in a currency."""
    return money_of(currency_code, parse_nanos(text))


def decimal_of(amount: Money) -> Decimal:
    """The amount, with two decimals or as many more as it needs."""
    value = Decimal(nanos_of(amount)).scaleb(-9)
    cents = value.quantize(Decimal("0.01")) if value == value.quantize(Decimal("0.01")) else value.normalize()
    return cents or Decimal("0.00")


def format_money(amount: Money) -> str:
    """For people: "USD 1,234.50"."""
    return f"{amount.currency_code} {decimal_of(amount):,f}".strip()
