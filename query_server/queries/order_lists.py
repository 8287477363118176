"""The statement behind ListOrders: each page is one walk along an index, wherever in the list it lies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from query_server.page_tokens import Cursor
from readmodel.orders import orders

_BEGINNING = -(1 << 63)
_END = (1 << 63) - 1


class OrderFilter(NamedTuple):
    """Which orders."""

    statuses: tuple[int, ...]
    """Distinct and sorted; empty: all."""
    customer_id: str
    """Empty: all."""
    begin: int | None
    """Created at or after this, microseconds since 1970."""
    end: int | None
    """Created before this."""

    @property
    def canonical(self) -> bytes:
        """The same bytes for the same filter, and for no other."""
        begin = _BEGINNING if self.begin is None else self.begin
        end = _END if self.end is None else self.end
        head = struct.pack(">qqB", begin, end, len(self.statuses))
        return b"ListOrders" + head + bytes(self.statuses) + self.customer_id.encode()


class Page(NamedTuple):
    """Which page of them."""

    filter: OrderFilter
    after: Cursor | None
    """Where the page before ended; None: the first page."""
    size: int
    """How many orders at most."""


def page_statement(columns: Sequence[sa.Column[Any]], generation: int, page: Page, *, extra: int = 0) -> sa.Select[Any]:
    """Selects the page's orders, newest first, and `extra` more.

    Without a status, or with a customer (of whom the orders are few), that is one range of an index. For several
    statuses each has its own range in `orders_by_status`, read up to the limit; the results are merged.
    """
    wanted, after, limit = page.filter, page.after, page.size + extra
    if not wanted.statuses or wanted.customer_id:
        statement = _range(columns, generation, wanted, after)
        if wanted.statuses:
            # "+ 0" keeps the planner from walking all orders of the status: a customer's are fewer.
            statement = statement.where((orders.c.status + 0).in_(wanted.statuses))
        return statement.limit(limit)
    ranges = [
        _range(columns, generation, wanted, after).where(orders.c.status == status).limit(limit).subquery()
        for status in wanted.statuses
    ]
    if len(ranges) == 1:
        merged: sa.FromClause = ranges[0]
    else:
        merged = sa.union_all(*(sa.select(part) for part in ranges)).subquery()
    return sa.select(merged).order_by(merged.c.create_time.desc(), merged.c.order_id.desc()).limit(limit)


def _range(
    columns: Sequence[sa.Column[Any]], generation: int, wanted: OrderFilter, after: Cursor | None
) -> sa.Select[Any]:
    where = [orders.c.generation == generation]
    if wanted.customer_id:
        where.append(orders.c.customer_id == wanted.customer_id)
    if wanted.begin is not None:
        where.append(orders.c.create_time >= wanted.begin)
    if wanted.end is not None and after is None:
        # The cursor lies before the end. With both, SQLite would walk from the end, past all earlier pages.
        where.append(orders.c.create_time < wanted.end)
    if after is not None:
        where.append(
            sa.tuple_(orders.c.create_time, orders.c.order_id)
            < sa.tuple_(sa.literal(after.create_time, sa.BigInteger), sa.literal(after.order_id, sa.Text))
        )
    return sa.select(*columns).where(*where).order_by(orders.c.create_time.desc(), orders.c.order_id.desc())
