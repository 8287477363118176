"""Exact arithmetic on amounts, as integers of nanos (billionths of a unit): never float, nothing is rounded."""

from __future__ import annotations

from orderstream.types.v1.money_pb2 import Money

NANOS_PER_UNIT = 1_000_000_000


def nanos_of(money: Money) -> int:
    """The amount in nanos."""
    return money.units * NANOS_PER_UNIT + money.nanos


def money_of(currency_code: str, nanos: int) -> Money:
    """An amount of `nanos`, normalised: `units` and `nanos` have the same sign."""
    units, rest = divmod(abs(nanos), NANOS_PER_UNIT)
    if nanos < 0:
        units, rest = -units, -rest
    return Money(currency_code=currency_code, units=units, nanos=rest)
