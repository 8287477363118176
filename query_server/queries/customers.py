"""Queries about customers."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import sqlalchemy as sa

from cqrs.errors import Rejected
from cqrs.records import to_timestamp
from cqrs.serving.validation import Violations
from orderstream.customers.v1.queries_pb2 import CustomerView, GetCustomerRequest, GetCustomerResponse
from query_server.view import View, need_of
from readmodel.orders import customers

SERVICE = "orderstream.customers.v1.CustomerQueryService"

_Context = grpc.aio.ServicerContext[Any, Any]


class CustomerQueries:
    """CustomerQueryService. Its methods answer with serialised responses."""

    def __init__(self, view: View) -> None:
        self._view = view

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for `GrpcServer.add_generic`."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {"GetCustomer": grpc.unary_unary_rpc_method_handler(self.get_customer, GetCustomerRequest.FromString)},
        )

    async def get_customer(self, request: GetCustomerRequest, context: _Context) -> bytes:
        """The customer as serialised GetCustomerResponse.

        Raises:
            Rejected: CUSTOMER_NOT_FOUND.
            ServiceError: INVALID_REQUEST, and what `View.cached` raises.
        """
        customer_id = request.customer_id
        v = Violations()
        v.text("customer_id", customer_id, 1, 64)
        need = need_of(v, request, context)
        v.check()
        answer = await self._view.cached(
            "customers:" + customer_id, need, lambda connection, generation: _get(connection, generation, customer_id)
        )
        if answer is None:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND,
                "CUSTOMER_NOT_FOUND",
                f"there is no customer {customer_id}",
                {"customer_id": customer_id},
            )
        body, tail = answer
        return body + tail


_GET = sa.select(customers).where(
    customers.c.generation == sa.bindparam("generation"), customers.c.customer_id == sa.bindparam("customer_id")
)
"""One customer."""


def _get(connection: sa.Connection, generation: int, customer_id: str) -> bytes | None:
    row = connection.execute(_GET, {"generation": generation, "customer_id": customer_id}).first()
    if row is None:
        return None
    customer = CustomerView(
        customer_id=row.customer_id,
        name=row.name,
        email=row.email,
        create_time=to_timestamp(row.create_time),
        update_time=to_timestamp(row.update_time),
        version=row.version,
        position=row.position,
    )
    return GetCustomerResponse(customer=customer).SerializeToString()
