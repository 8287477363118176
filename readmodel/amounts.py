"""Amounts and times between messages and columns: integers throughout, nothing is rounded."""

from __future__ import annotations

from datetime import date

from google.protobuf.timestamp_pb2 import Timestamp

from orderstream.types.v1.money_pb2 import Money

NANOS_PER_UNIT = 1_000_000_000

_SECONDS_PER_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def nanos_of(units: int, nanos: int) -> int:
    """A (units, nanos) pair as one number of billionths."""
    return units * NANOS_PER_UNIT + nanos


def pair_of(total_nanos: int) -> tuple[int, int]:
    """Billionths as a (units, nanos) pair, both of the amount's sign."""
    units, nanos = divmod(abs(total_nanos), NANOS_PER_UNIT)
    return (-units, -nanos) if total_nanos < 0 else (units, nanos)


def times(price: Money, quantity: int) -> Money:
    """`quantity` × `price`."""
    units, nanos = pair_of(nanos_of(price.units, price.nanos) * quantity)
    return Money(currency_code=price.currency_code, units=units, nanos=nanos)


def utc_day(time: Timestamp) -> str:
    """The UTC day of a time, "YYYY-MM-DD"."""
    return date.fromordinal(_EPOCH_DAY + time.seconds // _SECONDS_PER_DAY).isoformat()
