"""What can go wrong, as types.

    OrderstreamError
    ├── ServiceError                 answered to a client, with a code and a reason of the contract
    │   ├── InvalidRequest               INVALID_ARGUMENT
    │   ├── VersionConflict              ABORTED
    │   ├── RequestIdReused              ALREADY_EXISTS
    │   ├── AggregateIdTaken             ALREADY_EXISTS
    │   ├── EventTooLarge                INVALID_ARGUMENT
    │   ├── Overloaded                   RESOURCE_EXHAUSTED
    │   ├── StoreUnavailable             UNAVAILABLE
    │   ├── LogHalted                    UNAVAILABLE
    │   ├── ShuttingDown                 UNAVAILABLE
    │   ├── ReadModelBehind              ABORTED
    │   ├── HistoryChanged               FAILED_PRECONDITION
    │   ├── DependencyUnavailable        UNAVAILABLE
    │   ├── DeadlinePassed               DEADLINE_EXCEEDED
    │   ├── AggregateNotFound            NOT_FOUND
    │   ├── NotReached                   OUT_OF_RANGE
    │   └── Rejected                     a rule of the domain said no; the domain names code and reason
    └── OperatorError                stops a process: an operator must act; the message says how
        ├── SchemaMismatch
        ├── HistoryDiverged
        ├── LogInUse
        ├── UnsupportedBroker
        └── ConfigurationError

The reasons are documented for clients in proto/orderstream/errors/v1/errors.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from traceback import format_tb
from typing import NamedTuple

import grpc


class OrderstreamError(Exception):
    """Base of all errors of this system."""


def detach(error: Exception, *expected: type[Exception]) -> Exception:
    """`error` without its traceback, to be raised elsewhere; unless it is `expected`, the text is kept as a note.

    A traceback keeps its frames, and these the requests and batches that they worked on: an error that somebody waits
    for would keep them all, in cycles.
    """
    if not isinstance(error, (ServiceError, *expected)):
        error.add_note("".join(format_tb(error.__traceback__)))
    return error.with_traceback(None)


class ServiceError(OrderstreamError):
    """An answer other than OK. Subclasses fix code and reason; the data are attributes, not text."""

    code: grpc.StatusCode
    reason: str
    retry_after_seconds: float | None = None
    """When a retry is worth it, how long to wait first (google.rpc.RetryInfo)."""

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata or {}


class Violation(NamedTuple):
    """One field that is wrong."""

    field: str
    """Path of the field in the request, such as `items[2].quantity`."""
    description: str
    """What is wrong with it and what would be right."""


class InvalidRequest(ServiceError):
    """Fields of the request are malformed. `violations` has every one of them, not only the first."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)


class VersionConflict(ServiceError):
    """The aggregate is not at the version that the client expected."""

    code = grpc.StatusCode.ABORTED
    reason = "VERSION_CONFLICT"

    def __init__(self, aggregate_id: str, expected_version: int, current_version: int) -> None:
        at = f"is at version {current_version}" if current_version else "does not exist (version 0)"
        super().__init__(
            f"{aggregate_id} {at}, not at {expected_version}: read it again and decide again",
            {
                "aggregate_id": aggregate_id,
                "expected_version": str(expected_version),
                "current_version": str(current_version),
            },
        )
        self.aggregate_id = aggregate_id
        self.expected_version = expected_version
        self.current_version = current_version


class RequestIdReused(ServiceError):
    """The request id belongs to another command."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request id {request_id} was used with another method or payload: give each logical command its own",
            {"request_id": request_id},
        )


class AggregateIdTaken(ServiceError):
    """The id belongs to an aggregate of another type."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "AGGREGATE_ID_TAKEN"

    def __init__(self, aggregate_id: str, aggregate_type: str) -> None:
        super().__init__(
            f"{aggregate_id} is the id of a {aggregate_type}: ids are unique across types, choose another",
            {"aggregate_id": aggregate_id, "aggregate_type": aggregate_type},
        )


class EventTooLarge(ServiceError):
    """An event is larger than the broker could carry, and would halt the log for ever."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "EVENT_TOO_LARGE"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the event would have {size_bytes} bytes, the limit is {limit_bytes}: make the command smaller",
            {"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
        )


class Overloaded(ServiceError):
    """Too much is waiting; refused before any work."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    retry_after_seconds = 0.1


class StoreUnavailable(ServiceError):
    """A database cannot be reached or refused the transaction."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"
    retry_after_seconds = 0.5


class LogHalted(ServiceError):
    """The log is not the history that it was, or not the stream's: nothing is appended until an operator has acted."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "LOG_HALTED"
    retry_after_seconds = 5.0

    def __init__(self, why: str) -> None:
        super().__init__(f"no command is taken until an operator has acted, and nothing was done: {why}")


class ShuttingDown(ServiceError):
    """The server drains and takes no new work."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SHUTTING_DOWN"
    retry_after_seconds = 1.0

    def __init__(self) -> None:
        super().__init__("the server is shutting down: retry")


class ReadModelBehind(ServiceError):
    """The read model did not reach the client's consistency token in time."""

    code = grpc.StatusCode.ABORTED
    reason = "READ_MODEL_BEHIND"
    retry_after_seconds = 0.2

    def __init__(self, projection: str, required_position: int, current_position: int) -> None:
        super().__init__(
            f"the {projection} read model is at position {current_position}, the token needs {required_position}: "
            "retry, or allow more max_wait",
            {
                "projection": projection,
                "required_position": str(required_position),
                "current_position": str(current_position),
            },
        )


class HistoryChanged(ServiceError):
    """The token, or what was read before, is of a history that was replaced."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "HISTORY_CHANGED"

    def __init__(self, token_epoch: str, current_epoch: str) -> None:
        super().__init__(
            "the log was restored from a backup, and the token is of the history before that: drop it and read again",
            {"token_epoch": token_epoch, "current_epoch": current_epoch},
        )


class DependencyUnavailable(ServiceError):
    """A server that the answer needs cannot be reached."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"
    retry_after_seconds = 0.5


class DeadlinePassed(ServiceError):
    """The call's deadline had passed before its work began."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_PASSED"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the work began, and nothing was done")


class AggregateNotFound(ServiceError):
    """No aggregate has the id, or it did not exist yet."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "AGGREGATE_NOT_FOUND"

    def __init__(self, aggregate_id: str, when: str = "") -> None:
        super().__init__(
            f"no aggregate has the id {aggregate_id}{f' {when}' if when else ''}", {"aggregate_id": aggregate_id}
        )


class NotReached(ServiceError):
    """The version or position asked for lies ahead."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "NOT_REACHED"

    def __init__(self, what: str, requested: int, current: int) -> None:
        super().__init__(
            f"{what} {requested} is not reached yet: the newest is {current}",
            {"requested": str(requested), "current": str(current)},
        )


class Rejected(ServiceError):
    """A rule of the domain refused; nothing has changed."""

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata)
        self.code = code
        self.reason = reason


class OperatorError(OrderstreamError):
    """The process cannot go on until an operator acts. The message says what differs and which command mends it."""


class SchemaMismatch(OperatorError):
    """A database's schema is not the one that this code was written for."""


_MEND_HISTORY = (
    "`orderstream stream reset` shows what differs, and makes anew from the log what is made from it; if the settings "
    "name the wrong stream or log, correct them instead"
)


class HistoryDiverged(OperatorError):
    """Two of log, stream and checkpoint tell different histories.

    Args:
        difference: what differs, and between which two.
        mending: what to do about it.
    """

    def __init__(self, difference: str, mending: str = _MEND_HISTORY) -> None:
        super().__init__(f"{difference}; {mending}")
        self.difference = difference


class LogInUse(OperatorError):
    """Another process holds the write DB, which on SQLite has one owner."""


class UnsupportedBroker(OperatorError):
    """The broker lacks something that the log needs, or is set up against it."""


class ConfigurationError(OperatorError):
    """Settings that contradict each other or the machine."""
