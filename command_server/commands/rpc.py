"""What all command RPCs share: from a request to a Command, from its Outcome to the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from command_server.commands.call_metadata import read_call_metadata
from command_server.commands.responses import ResponseWriter
from command_server.rejections import to_error
from cqrs.commit.command import AggregateType, CallMetadata, CallMetadataPairs, Command, Outcome, fingerprint_of
from cqrs.ids import new_id
from cqrs.serving.errors import malformed_message
from cqrs.serving.validation import Violations
from cqrs.workers.requests import Reply
from domain.context import Context
from domain.rejection import Rejection

_MAX_REQUEST_ID = 128
_CLOCK_SKEW_MICROS = 300 * 1_000_000


@dataclass(frozen=True, slots=True)
class CommandRpc:
    """One command RPC."""

    name: str
    request: type[Message]
    response: type[Message]
    aggregate_type: AggregateType
    validate: Callable[[Any, Violations], None]
    """Checks the fields that are this command's own."""
    decide: Callable[[Any, Any, Context], Sequence[Message]]
    """The domain's decision."""
    creates: bool = False
    """The command makes the aggregate: its id may be left to the server."""
    customer: tuple[AggregateType, str] | None = None
    """The type of customers and the request's field that names one that the decision looks at."""


class CommandMethod:
    """A command RPC, as the committer's process sees it: a cqrs.workers.requests.Method."""

    paced = False

    def __init__(self, service: str, resource: str, rpc: CommandRpc) -> None:
        """Make it.

        Args:
            service: full name of the service.
            resource: "order" or "customer": the response's field, and with `_id` the request's.
            rpc: what is particular to it.
        """
        self.service = service
        self.name = rpc.name
        self.path = f"/{service}/{rpc.name}"
        self._id_field = f"{resource}_id"
        self._rpc = rpc
        self._respond = ResponseWriter(rpc.response, resource)

    def count(self, request: bytes) -> int:
        """See Method."""
        return 1

    def prepare(self, request: bytes, call_metadata: CallMetadataPairs) -> Sequence[Command | Exception]:
        """See Method."""
        try:
            message = self._rpc.request.FromString(request)
        except DecodeError:
            raise malformed_message() from None
        violations = Violations()
        metadata = read_call_metadata(call_metadata, violations)
        return (self.command(message, metadata, violations),)

    def reply(self, prepared: Sequence[Command | Exception], outcomes: Sequence[Outcome | Exception]) -> Reply:
        """See Method."""
        (outcome,) = outcomes
        if isinstance(outcome, Outcome):
            return Reply(*outcome)
        raise to_error(outcome) if isinstance(outcome, Rejection) else outcome

    def refusal(self, request: bytes, error: Exception) -> Reply:
        """See Method."""
        raise error

    def command(self, request: Any, metadata: CallMetadata, violations: Violations) -> Command:
        """Check a request and make the command.

        Raises:
            InvalidRequest: with these and all other violations.
        """
        rpc, id_field = self._rpc, self._id_field
        aggregate_id = getattr(request, id_field)
        is_new = rpc.creates and not aggregate_id
        if not is_new:
            violations.identifier(id_field, aggregate_id)
        rpc.validate(request, violations)
        _validate_common(request, violations)
        violations.check()

        request_id = request.request_id or None
        fingerprint = fingerprint_of(self.path, request) if request_id else b""
        if is_new:
            aggregate_id = new_id()
            setattr(request, id_field, aggregate_id)

        def decide(state: Any, now: Timestamp, references: Sequence[Any]) -> Sequence[Message]:
            return rpc.decide(state, request, Context(now, references[0] if references else None))

        return Command(
            method=self.path,
            aggregate_type=rpc.aggregate_type,
            aggregate_id=aggregate_id,
            decide=decide,
            respond=self._respond,
            fingerprint=fingerprint,
            request_id=request_id,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            references=((rpc.customer[0], getattr(request, rpc.customer[1])),) if rpc.customer else (),
            is_new=is_new,
            metadata=metadata,
        )


def _validate_common(request: Any, violations: Violations) -> None:
    request_id = request.request_id
    if request_id and not (len(request_id) <= _MAX_REQUEST_ID and request_id.isascii() and request_id.isprintable()):
        violations.add("request_id", f"must be at most {_MAX_REQUEST_ID} printable ASCII characters")
    if request.HasField("expected_version") and request.expected_version < 0:
        violations.add("expected_version", f"is {request.expected_version}, must be 0 or more")
    if request.HasField("occur_time"):
        latest = time.time_ns() // 1000 + _CLOCK_SKEW_MICROS
        violations.timestamp("occur_time", request.occur_time, earliest=0, latest=latest)
