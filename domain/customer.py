"""The customer aggregate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from domain.context import Context
from domain.rejection import Rejection
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, UpdateCustomerRequest
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.customers.v1.errors_pb2 import CustomerErrorReason
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated

# ---------------------------------------------------------------------------------------------------------------- state

AGGREGATE_TYPE = "customer"
"""Stored with every event: never change it."""


def _registered(customer: Customer, event: CustomerRegistered) -> None:
    customer.customer_id = event.customer_id
    customer.name = event.name
    customer.email = event.email
    customer.create_time.CopyFrom(event.occur_time)
    customer.update_time.CopyFrom(event.occur_time)


def _updated(customer: Customer, event: CustomerUpdated) -> None:
    customer.name = event.name
    customer.email = event.email
    customer.update_time.CopyFrom(event.occur_time)


# --------------------------------------------------------------------------------------------------------------- evolve

EVOLVE: dict[type[Message], Callable[[Customer, Any], None]] = {
    CustomerRegistered: _registered,
    CustomerUpdated: _updated,
}
"""What each event does to the state. Its keys are the events of this aggregate."""


def evolve(customer: Customer, event: Message) -> None:
    """Apply one event to the state, in place; whoever needs the state before it copies first."""
    EVOLVE[type(event)](customer, event)


# ------------------------------------------------------------------------------------------------------------ decisions


def decide_register(
    customer: Customer | None, command: RegisterCustomerRequest, context: Context
) -> Sequence[CustomerRegistered]:
    """Register a customer."""
    if customer is not None:
        raise _reject(
            CustomerErrorReason.CUSTOMER_ERROR_REASON_CUSTOMER_ALREADY_EXISTS,
            f"customer {command.customer_id} is already registered",
            customer_id=command.customer_id,
        )
    return [
        CustomerRegistered(
            customer_id=command.customer_id,
            name=command.name,
            email=command.email,
            occur_time=_occur_time(command, context),
        )
    ]


def decide_update(
    customer: Customer | None, command: UpdateCustomerRequest, context: Context
) -> Sequence[CustomerUpdated]:
    """Change name or email. The same values again change nothing."""
    if customer is None:
        raise _reject(
            CustomerErrorReason.CUSTOMER_ERROR_REASON_CUSTOMER_NOT_FOUND,
            f"no customer has the id {command.customer_id}",
            customer_id=command.customer_id,
        )
    name = command.name if command.HasField("name") else customer.name
    email = command.email if command.HasField("email") else customer.email
    if name == customer.name and email == customer.email:
        return []
    return [
        CustomerUpdated(
            customer_id=command.customer_id, name=name, email=email, occur_time=_occur_time(command, context)
        )
    ]


def _occur_time(command: RegisterCustomerRequest | UpdateCustomerRequest, context: Context) -> Timestamp:
    return command.occur_time if command.HasField("occur_time") else context.now


def _reject(reason: CustomerErrorReason.ValueType, message: str, **metadata: str) -> Rejection:
    return Rejection(CustomerErrorReason.Name(reason).removeprefix("CUSTOMER_ERROR_REASON_"), message, metadata)
