"""Parsing of values given on the command line, into messages of the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from orderstream.orders.v1.order_pb2 import Address, OrderItem, OrderStatus


def timestamp(text: str) -> Timestamp:
    """A time: "2026-05-01", "2026-05-01T12:30:00" (both UTC) or with an offset, "2026-05-01T12:30:00+02:00".

    Raises:
        typer.BadParameter: it is none of them.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-05-01T12:30:00Z") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    result = Timestamp()
    result.FromDatetime(time)
    return result


def item(text: str, currency: str) -> OrderItem:
    """An item: "SKU,QUANTITY,UNIT PRICE" or "SKU,QUANTITY,UNIT PRICE,NAME"; the name is the SKU if not given.

    Raises:
        typer.BadParameter: it is not of that form. (Limits are the server's to check.)
    """
    from cli.amounts import money
    from orderstream.orders.v1.order_pb2 import OrderItem

    sku, *rest = (part.strip() for part in text.split(",", 3))
    if len(rest) < 2:
        raise typer.BadParameter(f'{text!r} is no item: give SKU,QUANTITY,PRICE[,NAME], as in book-1,2,12.50,"A book"')
    try:
        quantity = int(rest[0])
        unit_price = money(rest[1].removeprefix("-"), currency)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no item: {error}") from error
    if not -(2**31) <= quantity < 2**31:
        raise typer.BadParameter(f"{text!r} is no item: the quantity is out of range")
    if rest[1].startswith("-"):
        unit_price.units, unit_price.nanos = -unit_price.units, -unit_price.nanos
    return OrderItem(sku=sku, quantity=quantity, unit_price=unit_price, name=rest[2] if len(rest) > 2 else sku)


def status(text: str) -> OrderStatus.ValueType:
    """A status by its name, in upper or lower case, without its prefix: "shipped".

    Raises:
        typer.BadParameter: there is no such status.
    """
    from cli.rendering.common import STATUS_PREFIX
    from orderstream.orders.v1.order_pb2 import OrderStatus

    names = [name.removeprefix(STATUS_PREFIX) for name, number in OrderStatus.items() if number]
    if text.upper() not in names:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(names)}")
    return OrderStatus.Value(STATUS_PREFIX + text.upper())


def address(recipient: str, lines: list[str], city: str, region: str, postal_code: str, country: str) -> Address | None:
    """A postal address; None when nothing of it is given."""
    from orderstream.orders.v1.order_pb2 import Address

    if not any((recipient, lines, city, region, postal_code, country)):
        return None
    return Address(
        recipient=recipient, lines=lines, city=city, region=region, postal_code=postal_code, country_code=country
    )
