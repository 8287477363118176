"""Queries about orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import sqlalchemy as sa

from cqrs.errors import Rejected
from cqrs.serving.validation import Violations
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.orders.v1.queries_pb2 import (
    BatchGetOrdersRequest,
    BatchGetOrdersResponse,
    GetOrderRequest,
    GetOrderResponse,
    ListOrdersRequest,
    ListOrdersResponse,
    OrderView,
)
from query_server.page_tokens import Cursor, MalformedPageToken, decode_page_token, encode_page_token
from query_server.queries.order_lists import OrderFilter, Page, page_statement
from query_server.view import View, need_of
from readmodel.orders import orders

SERVICE = "orderstream.orders.v1.OrderQueryService"

MOST_IDS = 1_000
MOST_PAGE_SIZE = 500
DEFAULT_PAGE_SIZE = 50

_ROOM_FOR_TAIL = 1_024

_Context = grpc.aio.ServicerContext[Any, Any]

_COLUMNS = (orders.c.order_id, orders.c.customer_name, orders.c.customer_email, orders.c.document)


class OrderQueries:
    """OrderQueryService. Its methods answer with serialised responses: those from the cache are never parsed again."""

    def __init__(self, view: View, *, max_response_bytes: int) -> None:
        self._view = view
        self._max_bytes = max_response_bytes - _ROOM_FOR_TAIL

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for `GrpcServer.add_generic`."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetOrder": grpc.unary_unary_rpc_method_handler(self.get_order, GetOrderRequest.FromString),
                "BatchGetOrders": grpc.unary_unary_rpc_method_handler(
                    self.batch_get_orders, BatchGetOrdersRequest.FromString
                ),
                "ListOrders": grpc.unary_unary_rpc_method_handler(self.list_orders, ListOrdersRequest.FromString),
            },
        )

    async def get_order(self, request: GetOrderRequest, context: _Context) -> bytes:
        """The order as serialised GetOrderResponse.

        Raises:
            Rejected: ORDER_NOT_FOUND.
            ServiceError: INVALID_REQUEST, and what `View.cached` raises.
        """
        order_id = request.order_id
        key = "orders:" + order_id
        view = self._view
        answer_it = view.cached
        if not request.consistency_token and not request.HasField("max_wait"):
            # The path of most calls: nothing to check but the id, and what is cached under it was found under it.
            answer_it = view.fetched
            kept = view.cache.get(key)
            if kept is not None and kept.body is not None:
                return kept.body + view.tails.cached(kept)
        v = Violations()
        v.text("order_id", order_id, 1, 64)
        need = need_of(v, request, context)
        v.check()
        answer = await answer_it(key, need, lambda connection, generation: _get(connection, generation, order_id))
        if answer is None:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND", f"there is no order {order_id}", {"order_id": order_id}
            )
        body, tail = answer
        return body + tail

    async def batch_get_orders(self, request: BatchGetOrdersRequest, context: _Context) -> bytes:
        """Several orders of one snapshot as serialised BatchGetOrdersResponse.

        Raises:
            ServiceError: INVALID_REQUEST, and what `View.read` raises.
        """
        v = Violations()
        count = len(request.order_ids)
        if not 1 <= count <= MOST_IDS:
            v.add("order_ids", f"has {count} ids, must have 1 to {MOST_IDS}")
        else:
            for index, order_id in enumerate(request.order_ids):
                v.text(f"order_ids[{index}]", order_id, 1, 64)
        need = need_of(v, request, context)
        v.check()
        ids = list(dict.fromkeys(request.order_ids))
        body, tail = await self._view.read(need, lambda connection, generation: _batch(connection, generation, ids))
        if len(body) > self._max_bytes:
            v.add("order_ids", f"name orders of {len(body)} bytes, the limit is {self._max_bytes}: ask for fewer")
            v.check()
        return body + tail

    async def list_orders(self, request: ListOrdersRequest, context: _Context) -> bytes:
        """A page of orders as serialised ListOrdersResponse.

        Raises:
            ServiceError: INVALID_REQUEST, and what `View.read` raises.
        """
        v = Violations()
        wanted = _filter(v, request)
        v.integer("page_size", request.page_size, 0, MOST_PAGE_SIZE)
        after = None
        if request.page_token:
            try:
                after = decode_page_token(request.page_token, wanted.canonical)
            except MalformedPageToken:
                v.add("page_token", "is not a token that this query gave with this filter: begin with the first page")
        need = need_of(v, request, context)
        v.check()
        page = Page(wanted, after, request.page_size or DEFAULT_PAGE_SIZE)
        body, tail = await self._view.read(
            need, lambda connection, generation: _page(connection, generation, page, self._max_bytes)
        )
        return body + tail


def _filter(v: Violations, request: ListOrdersRequest) -> OrderFilter:
    if len(request.statuses) > 7:
        v.add("statuses", f"has {len(request.statuses)} statuses, must have at most 7")
    else:
        for index, status in enumerate(request.statuses):
            if status not in _STATUSES:
                v.add(f"statuses[{index}]", f"is {status}, must be one of {', '.join(_STATUSES.values())}")
    v.text("customer_id", request.customer_id, 0, 64)
    begin = v.timestamp("create_time_from", request.create_time_from) if request.HasField("create_time_from") else None
    end = v.timestamp("create_time_to", request.create_time_to) if request.HasField("create_time_to") else None
    if begin is not None and end is not None and begin > end:
        v.add("create_time_to", "is before create_time_from")
    statuses = tuple(sorted(set(request.statuses)))
    return OrderFilter(statuses if len(statuses) < len(_STATUSES) else (), request.customer_id, begin, end)


_STATUSES = {number: name for name, number in OrderStatus.items() if number}


_GET = sa.select(*_COLUMNS).where(
    orders.c.generation == sa.bindparam("generation"), orders.c.order_id == sa.bindparam("order_id")
)
"""One order."""

_BATCH = sa.select(*_COLUMNS).where(
    orders.c.generation == sa.bindparam("generation"), orders.c.order_id.in_(sa.bindparam("ids", expanding=True))
)
"""Several orders by id."""


def _get(connection: sa.Connection, generation: int, order_id: str) -> bytes | None:
    row = connection.execute(_GET, {"generation": generation, "order_id": order_id}).first()
    return None if row is None else GetOrderResponse(order=_order(row)).SerializeToString()


def _batch(connection: sa.Connection, generation: int, ids: list[str]) -> bytes:
    rows = connection.execute(_BATCH, {"generation": generation, "ids": ids})
    found = {row.order_id: _order(row) for row in rows}
    return BatchGetOrdersResponse(
        orders=[found[order_id] for order_id in ids if order_id in found],
        missing_order_ids=[order_id for order_id in ids if order_id not in found],
    ).SerializeToString()


def _page(connection: sa.Connection, generation: int, page: Page, max_bytes: int) -> bytes:
    columns = (*_COLUMNS, orders.c.create_time)
    # One more than asked for says whether there is another page.
    rows = connection.execute(page_statement(columns, generation, page, extra=1)).all()
    shown = _fitting(rows[: page.size], max_bytes)
    response = ListOrdersResponse(orders=[_order(row) for row in rows[:shown]])
    if len(rows) > shown:
        last = rows[shown - 1]
        response.next_page_token = encode_page_token(Cursor(last.create_time, last.order_id), page.filter.canonical)
    return response.SerializeToString()


def _fitting(rows: Sequence[sa.Row[*tuple[Any, ...]]], max_bytes: int) -> int:
    """How many of the rows fit into an answer; at least one. A page of large orders ends early."""
    size = 0
    for index, row in enumerate(rows):
        # Names and emails have up to 4 bytes a character, and fields a head of at most 8.
        size += len(row.document) + 4 * (len(row.customer_name) + len(row.customer_email)) + 24
        if size > max_bytes:
            return max(index, 1)
    return len(rows)


def _order(row: sa.Row[*tuple[Any, ...]]) -> OrderView:
    """The view of an order: its document, with what is kept beside it for the sake of customers' renames."""
    order = OrderView.FromString(row.document)
    order.customer_name = row.customer_name
    order.customer_email = row.customer_email
    return order
