"""Turns errors into answers: google.rpc.Status with typed details, as the contract promises."""

from __future__ import annotations

from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from cqrs.errors import InvalidRequest, ServiceError, Violation
from cqrs.ids import new_id
from cqrs.serving.logging import get_logger

_log = get_logger(__name__)

ERROR_DOMAIN = "orderstream"
"""`domain` of every ErrorInfo."""

STATUS_DETAILS_KEY = "grpc-status-details-bin"

_MAX_STATUS_BYTES = 5_000
_MAX_MESSAGE_BYTES = 700
"""Status and message travel in HTTP/2 trailers, the one in base64, the other percent-encoded. Peers take 8 KiB of
trailers by default (some count them encoded); past that a client sees a transport error and none of this."""

_MAX_FIELD_CHARACTERS = 200
_MAX_DESCRIPTION_CHARACTERS = 400


class Answer(NamedTuple):
    """An answer other than OK, ready for `ServicerContext.abort`."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...]

    @property
    def status(self) -> bytes:
        """The google.rpc.Status, serialised."""
        return self.trailing_metadata[0][1]


class AnsweredElsewhere(ServiceError):
    """Another process has made the answer already: it is to be passed on as it is."""

    reason = ""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.code = answer.code
        self.answer = answer


def answer_to(error: Exception, method: str) -> Answer:
    """The answer to a client for whatever went wrong; a defect is logged, and answered with the place in the log."""
    if isinstance(error, ServiceError):
        return answer_of(error)
    incident_id = new_id()
    _log.error("call failed by a defect", method=method, incident_id=incident_id, exc_info=error)
    return internal_error(incident_id)


def answer_of(error: ServiceError) -> Answer:
    """The answer to a client for an error."""
    if isinstance(error, AnsweredElsewhere):
        return error.answer
    status = status_of(error)
    return Answer(error.code, status.message, ((STATUS_DETAILS_KEY, status.SerializeToString()),))


def status_of(error: ServiceError) -> Status:
    """The google.rpc.Status of an error: ErrorInfo first, then what else fits its code.

    The message begins with the reason too: for people whose tools do not decode details (`buf curl`, most logs).
    """
    message = _cut_encoded(error.message, _MAX_MESSAGE_BYTES)
    status = Status(code=error.code.value[0], message=f"{error.reason}: {message}")
    _attach(status, ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata))
    if isinstance(error, InvalidRequest):
        _attach(status, _bad_request(error, _MAX_STATUS_BYTES - status.ByteSize()))
    if error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS):
        kind, name = _subject(error)
        _attach(status, ResourceInfo(resource_type=kind, resource_name=name, description=message))
    if error.code is grpc.StatusCode.FAILED_PRECONDITION:
        violation = PreconditionFailure.Violation(type=error.reason, subject=_subject(error)[1], description=message)
        _attach(status, PreconditionFailure(violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMicroseconds(round(error.retry_after_seconds * 1_000_000))
        _attach(status, RetryInfo(retry_delay=delay))
    return status


def internal_error(incident_id: str) -> Answer:
    """The answer for a defect: it says where to look, and nothing of what went wrong."""
    message = f"INTERNAL: a defect; the server's log has the cause under incident_id {incident_id}"
    status = Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)
    _attach(status, ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"incident_id": incident_id}))
    return Answer(grpc.StatusCode.INTERNAL, message, ((STATUS_DETAILS_KEY, status.SerializeToString()),))


def malformed_message() -> InvalidRequest:
    """For bytes that are not the message of the contract."""
    return InvalidRequest([Violation("", "the bytes are not a message of the method's request type")])


def _bad_request(error: InvalidRequest, room: int) -> BadRequest:
    """Every violation, as long as they fit; then one that counts the rest."""
    details = BadRequest()
    for index, violation in enumerate(error.violations):
        text = BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_FIELD_CHARACTERS),
            description=_cut(violation.description, _MAX_DESCRIPTION_CHARACTERS),
        )
        if details.ByteSize() + text.ByteSize() > room - 160:
            left = len(error.violations) - index
            details.field_violations.add(description=f"and {left} more violations, for which there is no room here")
            break
        details.field_violations.append(text)
    return details


def _subject(error: ServiceError) -> tuple[str, str]:
    """What kind of thing the error is about, and which one: by convention the first `<kind>_id` of its metadata."""
    for key, value in error.metadata.items():
        if key.endswith("_id"):
            return error.metadata.get("aggregate_type", key.removesuffix("_id")), value
    return "", ""


def _attach(status: Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cut_encoded(text: str, limit: int) -> str:
    """`text`, cut to at most `limit` bytes in the percent-encoding of the `grpc-message` header."""
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size > limit:
            return text[: max(index - 9, 0)] + "…"
    return text
