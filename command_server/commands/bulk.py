"""Commands in bulk: many in a message, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from command_server.commands.call_metadata import read_call_metadata
from command_server.commands.rpc import CommandMethod
from command_server.rejections import to_error
from cqrs.commit.command import CallMetadataPairs, Command, Outcome
from cqrs.errors import InvalidRequest, LogHalted, StoreUnavailable
from cqrs.serving.errors import answer_to, malformed_message
from cqrs.serving.validation import Violations
from cqrs.wire import length_tag, varint
from cqrs.workers.requests import Reply
from domain.rejection import Rejection
from orderstream.commands.v1 import command_service_pb2 as contract

SERVICE = "orderstream.commands.v1.CommandService"

MAX_COMMANDS = 1000
"""In one message."""

MAX_ANSWER_BYTES = 1024 * 1024
"""An answer that would be larger is sent in parts: outcomes can be far larger than their commands, and a client's limit
is 4 MiB if it does not set one."""

_BYTES_PER_COMMAND = 100
"""Of a small one."""

_OUTCOMES_TAG = length_tag(contract.ExecuteCommandsResponse.OUTCOMES_FIELD_NUMBER)
_REPLAYED = contract.CommandOutcome(replayed=True).SerializeToString()


class BulkMethod:
    """ExecuteCommands, as the committer's process sees it: a message of it is a request with many commands.

    Answers are put together from the outcomes' bytes as they are, by the rules of the wire format
    (https://protobuf.dev/programming-guides/encoding/): parsing them only to write them again would cost as much as
    deciding.
    """

    path = f"/{SERVICE}/ExecuteCommands"
    service = SERVICE
    name = "ExecuteCommands"
    paced = True

    def __init__(self, methods: Mapping[str, CommandMethod]) -> None:
        """Understand the commands that `methods` has, by their field in Command and CommandOutcome."""
        self._methods = methods
        numbers = {field.name: field.number for field in contract.CommandOutcome.DESCRIPTOR.fields}
        self._tags = {method.path: length_tag(numbers[field]) for field, method in methods.items()}
        self._error_tag = length_tag(numbers["error"])

    def count(self, request: bytes) -> int:
        """See Method."""
        return min(1 + len(request) // _BYTES_PER_COMMAND, MAX_COMMANDS)

    def prepare(self, request: bytes, call_metadata: CallMetadataPairs) -> Sequence[Command | Exception]:
        """See Method."""
        commands = _parse(request)
        violations = Violations()
        metadata = read_call_metadata(call_metadata, violations)
        if not 1 <= len(commands) <= MAX_COMMANDS:
            violations.add("commands", f"has {len(commands)} commands, must have 1 to {MAX_COMMANDS}")
        violations.check()
        prepared: list[Command | Exception] = []
        for command in commands:
            field = command.WhichOneof("command")
            violations = Violations()
            try:
                if field is None:
                    violations.add("command", "is required, and must be one that this server knows")
                    violations.check()
                else:
                    method = self._methods[field]
                    prepared.append(method.command(getattr(command, field), metadata, violations))
            except InvalidRequest as error:
                prepared.append(error.with_traceback(None))
        return prepared

    def reply(self, prepared: Sequence[Command | Exception], outcomes: Sequence[Outcome | Exception]) -> Reply:
        """See Method.

        Raises:
            StoreUnavailable, LogHalted: some of the commands could not be executed: what follows them must not be.
        """
        parts: list[bytes] = []
        for command, outcome in zip(prepared, outcomes, strict=True):
            if isinstance(outcome, Outcome) and isinstance(command, Command):
                body = self._tags[command.method] + varint(len(outcome.response)) + outcome.response
                if outcome.replayed:
                    body += _REPLAYED
            elif isinstance(outcome, (StoreUnavailable, LogHalted)):
                raise outcome
            else:
                body = self._error(outcome)
            parts += (_OUTCOMES_TAG, varint(len(body)), body)
        return Reply(b"".join(parts), replayed=False)

    def refusal(self, request: bytes, error: Exception) -> Reply:
        """See Method. What is no single command's fault ends the stream."""
        raise error

    def _error(self, outcome: Outcome | Exception) -> bytes:
        assert isinstance(outcome, Exception)  # noqa: S101 - what is malformed has no outcome but its error
        error = to_error(outcome) if isinstance(outcome, Rejection) else outcome
        status = answer_to(error, self.path).status
        return self._error_tag + varint(len(status)) + status


def split_answer(answer: bytes) -> Iterator[bytes]:
    """An answer as one message, or if it is too large as several, each with some of the outcomes."""
    if len(answer) <= MAX_ANSWER_BYTES:
        yield answer
        return
    begin = at = 0
    while at < len(answer):
        size, body = _read_varint(answer, at + len(_OUTCOMES_TAG))
        if body + size - begin > MAX_ANSWER_BYTES and at > begin:
            yield answer[begin:at]
            begin = at
        at = body + size
    yield answer[begin:]


def _parse(request: bytes) -> Sequence[contract.Command]:
    try:
        return contract.ExecuteCommandsRequest.FromString(request).commands
    except DecodeError:
        raise malformed_message() from None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
