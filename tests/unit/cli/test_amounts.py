"""Amounts between text and Money."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.amounts import decimal_of, format_money, money, parse_nanos
from orderstream.types.v1.money_pb2 import Money


@pytest.mark.parametrize("text", ["", "-1", "+1", "1,5", "1.", ".5", "1e3", "١", "1.0000000001", "1" * 13, " 1"])
def test_what_is_no_plain_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        parse_nanos(text)


@given(units=st.integers(0, 10**12 - 1), nanos=st.integers(0, 10**9 - 1))
def test_an_amount_survives_text_to_the_last_digit(units: int, nanos: int) -> None:
    assert parse_nanos(f"{units}.{nanos:09}") == units * 10**9 + nanos
    assert decimal_of(Money(units=units, nanos=nanos)) * 10**9 == units * 10**9 + nanos


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (money("0", "USD"), "USD 0.00"),
        (money("1234.5", "USD"), "USD 1,234.50"),
        (money("0.001", "EUR"), "EUR 0.001"),
        (money("100", "JPY"), "JPY 100.00"),
        (Money(currency_code="USD", units=-1, nanos=-500_000_000), "USD -1.50"),
    ],
)
def test_amounts_are_shown_with_two_decimals_or_as_many_as_they_need(amount: Money, text: str) -> None:
    assert format_money(amount) == text
