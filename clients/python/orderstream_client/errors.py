"""Errors as the contract has them (proto/orderstream/errors/v1): by reason, never by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

_STATUS_DETAILS_KEY = "grpc-status-details-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class FieldViolation(NamedTuple):
    """One field of the request that is wrong."""

    field: str
    """Path of the field, such as `items[2].quantity`."""
    description: str
    """What is wrong with it."""


class OrderstreamCallError(Exception):
    """A call was answered with an error, or could not be made."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}{f' / {reason}' if reason else ''}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        """A name of the contract's reasons without its prefix, such as "VERSION_CONFLICT"; empty if no server
        answered."""
        self.metadata: Mapping[str, str] = metadata or {}
        """What the reason's comment in the contract lists, such as "current_version"."""
        self.violations = tuple(violations)
        """For INVALID_REQUEST: every field that is wrong."""
        self.retry_after = retry_after
        """How long to wait before a retry, in seconds; None if the server names no time."""


def decode_error(error: grpc.aio.AioRpcError) -> OrderstreamCallError:
    """What a failed call of grpc.aio says, as the contract has it. An error without details has an empty `reason`."""
    status = _status(error)
    if status is None:
        return OrderstreamCallError(error.code(), error.details() or "")
    return _from_status(error.code(), error.details() or "", status)


def decode_status(status: bytes) -> OrderstreamCallError:
    """What a google.rpc.Status says, serialised, such as the error in a CommandOutcome."""
    decoded = Status.FromString(status)
    return _from_status(_CODES.get(decoded.code, grpc.StatusCode.UNKNOWN), decoded.message, decoded)


def _from_status(code: grpc.StatusCode, message: str, status: Status) -> OrderstreamCallError:
    reason = ""
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(request):
            violations = [FieldViolation(each.field, each.description) for each in request.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMicroseconds() / 1_000_000
    message = message.removeprefix(f"{reason}: ")
    return OrderstreamCallError(
        code, message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after
    )


def _status(error: grpc.aio.AioRpcError) -> Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None  # Not of our making; code and message still say what there is to say.
    return None
