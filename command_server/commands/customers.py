"""CustomerCommandService."""

from __future__ import annotations

import re

from command_server.aggregates import CUSTOMER
from command_server.commands.rpc import CommandRpc
from cqrs.serving.validation import Violations
from domain import customer
from orderstream.customers.v1.commands_pb2 import (
    RegisterCustomerRequest,
    RegisterCustomerResponse,
    UpdateCustomerRequest,
    UpdateCustomerResponse,
)

SERVICE = "orderstream.customers.v1.CustomerCommandService"

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+").fullmatch
_MAX_EMAIL = 254


def _name(value: str, violations: Violations) -> None:
    violations.text("name", value, 1, 200)


def _email(value: str, violations: Violations) -> None:
    if not _EMAIL(value):
        violations.add("email", "must have one @ with something on both sides, and no spaces")
    else:
        violations.text("email", value, 3, _MAX_EMAIL)


def _register(request: RegisterCustomerRequest, violations: Violations) -> None:
    _name(request.name, violations)
    _email(request.email, violations)


def _update(request: UpdateCustomerRequest, violations: Violations) -> None:
    if request.HasField("name"):
        _name(request.name, violations)
    if request.HasField("email"):
        _email(request.email, violations)
    if not request.HasField("name") and not request.HasField("email"):
        violations.add("name", "give name, email or both: there is nothing to change")


RPCS = (
    CommandRpc(
        "RegisterCustomer",
        RegisterCustomerRequest,
        RegisterCustomerResponse,
        CUSTOMER,
        _register,
        customer.decide_register,
        creates=True,
    ),
    CommandRpc(
        "UpdateCustomer", UpdateCustomerRequest, UpdateCustomerResponse, CUSTOMER, _update, customer.decide_update
    ),
)
