"""A command on its way to the log, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


@dataclass(frozen=True, slots=True)
class AggregateType:
    """What the mechanism needs to know of a kind of aggregate."""

    name: str
    """Stored with every event, and part of its subject: letters, digits, `_` and `-`."""
    state: type[Message]
    """The message that holds the state; empty before the first event."""
    evolve: Callable[[Any, Message], None]
    """Applies one event to a state, in place."""
    events: Mapping[str, type[Message]]
    """The event messages by full name."""


CallMetadataPairs = Iterable[tuple[str, str | bytes]] | None
"""A call's metadata, as gRPC has it."""


class CallMetadata(NamedTuple):
    """What a call's metadata says of who and what caused it; goes into the events."""

    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None
    traceparent: str | None = None
    reason: str | None = None


Decision = Callable[[Any, Timestamp, Sequence[Any]], Sequence[Message]]
"""(state or None, now, the referred aggregates' states or None) → events, or a raised Rejection."""

Response = Callable[[Any, int, str], bytes]
"""(state after the command, its version, consistency token) → the response message, serialised."""


class Submission(Protocol):
    """What is handed to the committer: a request that becomes commands when its batch is made up.

    Checked and built there, many in a row, a command costs a third of what it does in between two calls of a busy
    server, when everything has left the processor's caches (docs/adr/0012-requests-are-checked-in-their-batch.md).
    """

    @property
    def size_bytes(self) -> int:
        """Size of the request: batches and the queue are bounded by it."""
        ...

    @property
    def commands(self) -> int:
        """How many commands it holds, about: the queue is bounded by it."""
        ...

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` after which nobody waits for the outcome; None: none was set."""
        ...

    @property
    def paced(self) -> bool:
        """Its sender has few of them under way at a time: it is not refused because too much waits."""
        ...

    @property
    def abandoned(self) -> bool:
        """Nobody waits any more: it need not be looked at."""
        ...

    def prepare(self) -> Sequence[Command | Exception]:
        """The commands, in order; an error in the place of one that is malformed.

        Raises:
            ServiceError: the request as a whole is malformed.
        """
        ...

    def answer(self, outcomes: Sequence[Outcome | Exception]) -> None:
        """Tell who waits: one outcome for each command, in order."""
        ...

    def refuse(self, error: Exception) -> None:
        """Tell who waits that nothing was done, or that what was done is not known; the error says which."""
        ...


@dataclass(slots=True, eq=False)
class Command:
    """A validated command: which aggregate, how to decide, how to answer."""

    method: str
    """Full name of the RPC; part of the fingerprint."""
    aggregate_type: AggregateType
    aggregate_id: str
    decide: Decision
    respond: Response
    fingerprint: bytes = b""
    """See `fingerprint_of`. Needed with a request id."""
    request_id: str | None = None
    expected_version: int | None = None
    """None: any. 0: must not exist. n: must be at version n."""
    references: Sequence[tuple[AggregateType, str]] = ()
    """Aggregates that the decision looks at beside its own."""
    is_new: bool = False
    """The id was made by this server just now: nothing needs to be loaded."""
    metadata: CallMetadata = field(default_factory=CallMetadata)


class Outcome(NamedTuple):
    """The answer to a command that succeeded."""

    response: bytes
    """The response message, serialised. The same bytes again when the request id is repeated."""
    replayed: bool
    """It was stored by an earlier call with the same request id."""


def fingerprint_of(method: str, request: Message) -> bytes:
    """SHA-256 of method and request: tells a repeated command from another with the same request id.

    Take it before the server adds anything of its own (ids) to the request.
    """
    return sha256(method.encode() + b"\0" + request.SerializeToString(deterministic=True)).digest()
