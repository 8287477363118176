"""What all command RPCs share: from a request to a Command, from its Outcome to the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from command_server.commands.call_metadata import read_call_metadata
from command_server.rejections import to_error
from cqrs.commit.command import AggregateType, Command, fingerprint_of
from cqrs.commit.committer import Committer
from cqrs.ids import new_id
from cqrs.serving.deadlines import remaining_seconds
from cqrs.serving.errors import malformed_message
from cqrs.serving.validation import Violations
from domain.context import Context
from domain.rejection import Rejection

REPLAYED = (("x-idempotent-replayed", "true"),)
"""Trailing metadata of an answer that an earlier call with the same request id stored."""

_MAX_REQUEST_ID = 128
_CLOCK_SKEW_MICROS = 300 * 1_000_000

_ServicerContext = grpc.aio.ServicerContext[Any, Any]
_Pairs = Iterable[tuple[str, str | bytes]] | None


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


def command_handlers(
    service: str, resource: str, rpcs: Iterable[CommandRpc], committer: Committer
) -> grpc.GenericRpcHandler:
    """The gRPC handlers of a command service: bytes in, and out those that the committer made and stored.

    Args:
        service: full name of the service.
        resource: "order" or "customer": the responses' field, and with `_id` the requests'.
        rpcs: its RPCs.
        committer: executes.
    """
    return grpc.method_handlers_generic_handler(
        service,
        {
            rpc.name: grpc.unary_unary_rpc_method_handler(
                _handler(_Method(f"/{service}/{rpc.name}", resource, rpc), committer)
            )
            for rpc in rpcs
        },
    )


def _handler(method: _Method, committer: Committer) -> Callable[[bytes, _ServicerContext], Awaitable[bytes]]:
    async def handle(request: bytes, context: _ServicerContext) -> bytes:
        call = _Call(method, request, context.invocation_metadata(), _deadline(context))
        try:
            outcome = await committer.submit(call)
        except Rejection as rejection:
            raise to_error(rejection) from rejection
        if outcome.replayed:
            context.set_trailing_metadata(REPLAYED)
        return outcome.response

    return handle


class _Method:
    """How requests of one RPC become commands."""

    def __init__(self, path: str, resource: str, rpc: CommandRpc) -> None:
        self._path = path
        self._resource = resource
        self._id_field = f"{resource}_id"
        self._rpc = rpc

    def prepare(self, raw: bytes, call_metadata: _Pairs) -> Command:
        """Parse and check a request."""
        rpc, id_field = self._rpc, self._id_field
        try:
            request: Any = rpc.request.FromString(raw)
        except DecodeError:
            raise malformed_message() from None
        violations = Violations()
        metadata = read_call_metadata(call_metadata, violations)
        aggregate_id = getattr(request, id_field)
        is_new = rpc.creates and not aggregate_id
        if not is_new:
            violations.identifier(id_field, aggregate_id)
        rpc.validate(request, violations)
        _validate_common(request, violations)
        violations.check()

        request_id = request.request_id or None
        fingerprint = fingerprint_of(self._path, request) if request_id else b""
        if is_new:
            aggregate_id = new_id()
            setattr(request, id_field, aggregate_id)

        def decide(state: Any, now: Timestamp, references: Sequence[Any]) -> Sequence[Message]:
            return rpc.decide(state, request, Context(now, references[0] if references else None))

        return Command(
            method=self._path,
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

    def _respond(self, state: Message, version: int, token: str) -> Message:
        return self._rpc.response(**{self._resource: state, "version": version, "consistency_token": token})


class _Call:
    """A request as it arrived: the committer's Submission."""

    __slots__ = ("_call_metadata", "_method", "_request", "deadline", "size_bytes")

    def __init__(self, method: _Method, request: bytes, call_metadata: _Pairs, deadline: float | None) -> None:
        self._method = method
        self._request = request
        self._call_metadata = call_metadata
        self.size_bytes = len(request)
        self.deadline = deadline

    def prepare(self) -> Command:
        """See Submission."""
        return self._method.prepare(self._request, self._call_metadata)


def _validate_common(request: Any, violations: Violations) -> None:
    request_id = request.request_id
    if request_id and not (len(request_id) <= _MAX_REQUEST_ID and request_id.isascii() and request_id.isprintable()):
        violations.add("request_id", f"must be at most {_MAX_REQUEST_ID} printable ASCII characters")
    if request.HasField("expected_version") and request.expected_version < 0:
        violations.add("expected_version", f"is {request.expected_version}, must be 0 or more")
    if request.HasField("occur_time"):
        latest = time.time_ns() // 1000 + _CLOCK_SKEW_MICROS
        violations.timestamp("occur_time", request.occur_time, earliest=0, latest=latest)


def _deadline(context: _ServicerContext) -> float | None:
    remaining = remaining_seconds(context)
    return None if remaining is None else asyncio.get_running_loop().time() + remaining
