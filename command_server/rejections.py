"""The gRPC status code of each reason for which the domain rejects a command."""

from __future__ import annotations

from grpc import StatusCode

from cqrs.errors import Rejected
from domain.rejection import Rejection

CODES: dict[str, StatusCode] = {
    "ORDER_NOT_FOUND": StatusCode.NOT_FOUND,
    "ORDER_ALREADY_EXISTS": StatusCode.ALREADY_EXISTS,
    "CUSTOMER_NOT_REGISTERED": StatusCode.FAILED_PRECONDITION,
    "ORDER_NOT_EDITABLE": StatusCode.FAILED_PRECONDITION,
    "ILLEGAL_STATUS_TRANSITION": StatusCode.FAILED_PRECONDITION,
    "ORDER_NOT_CANCELLABLE": StatusCode.FAILED_PRECONDITION,
    "ITEM_NOT_IN_ORDER": StatusCode.FAILED_PRECONDITION,
    "ORDER_WOULD_BE_EMPTY": StatusCode.FAILED_PRECONDITION,
    "CURRENCY_MISMATCH": StatusCode.FAILED_PRECONDITION,
    "ITEM_CONFLICT": StatusCode.FAILED_PRECONDITION,
    "ORDER_TOO_LARGE": StatusCode.FAILED_PRECONDITION,
    "CUSTOMER_NOT_FOUND": StatusCode.NOT_FOUND,
    "CUSTOMER_ALREADY_EXISTS": StatusCode.ALREADY_EXISTS,
}


def to_error(rejection: Rejection) -> Rejected:
    """The answer to a client whose command the domain rejected."""
    return Rejected(CODES[rejection.reason], rejection.reason, rejection.message, rejection.metadata)
