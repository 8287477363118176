"""Requests on their way from the workers to the committer, and their answers on the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from cqrs.commit.command import CallMetadataPairs, Command, Outcome
from cqrs.serving.errors import AnsweredElsewhere, answer_to


class Reply(NamedTuple):
    """The answer to a request that succeeded."""

    response: bytes
    """The response message, serialised."""
    replayed: bool
    """It was stored by an earlier call with the same request id."""


class Method(Protocol):
    """How requests of one RPC become commands, and the outcomes of these an answer.

    A request is one call, or one message of a stream.
    """

    @property
    def path(self) -> str:
        """The RPC's path: `/service/Method`."""
        ...

    @property
    def paced(self) -> bool:
        """Whether flow control holds its senders: then none of its requests is refused because too much waits."""
        ...

    def count(self, request: bytes) -> int:
        """How many commands a request holds, about, without parsing it."""
        ...

    def prepare(self, request: bytes, call_metadata: CallMetadataPairs) -> Sequence[Command | Exception]:
        """The commands in a request, in order; an error in the place of one that is malformed.

        Raises:
            ServiceError: the request as a whole is malformed.
        """
        ...

    def reply(self, prepared: Sequence[Command | Exception], outcomes: Sequence[Outcome | Exception]) -> Reply:
        """The answer to what was prepared, with an outcome for each. Raises the error that the call is to end with."""
        ...

    def refusal(self, request: bytes, error: Exception) -> Reply:
        """The answer when nothing of a request was done, or it is not known. Raises the error to end the call with."""
        ...


class Stream:
    """Requests that take effect in their order, or not at all from the first on that fails as a whole."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: AnsweredElsewhere | None = None
        """The answer to the request that failed, and so to those behind it."""


class Request:
    """A worker's request: the committer's Submission.

    That nothing of a stream takes effect behind what has failed stands on batches being prepared only when those before
    them have been answered.
    """

    __slots__ = (
        "_answer", "_call_metadata", "_method", "_number", "_prepared", "_request", "_stream",
        "commands", "deadline", "paced", "size_bytes",
    )  # fmt: skip

    abandoned = False
    """A worker does not tell when a client stops waiting; the deadline does."""

    def __init__(
        self,
        number: int,
        method: Method,
        request: bytes,
        call_metadata: CallMetadataPairs,
        deadline: float | None,
        stream: Stream | None,
        answer: Callable[[tuple[Any, ...]], None],
    ) -> None:
        """Make it.

        Args:
            number: what the worker calls it.
            method: how to understand it.
            request: the message, serialised.
            call_metadata: what the call's metadata has for events.
            deadline: `time.monotonic()` after which nobody waits for the answer; None: no limit.
            stream: what it belongs to; None: it is a call by itself.
            answer: takes the message that the worker's `RemoteCommands` understands.
        """
        self._number = number
        self._method = method
        self._request = request
        self._call_metadata = call_metadata
        self._stream = stream
        self._answer = answer
        self._prepared: Sequence[Command | Exception] = ()
        self.commands = method.count(request)
        self.paced = method.paced
        self.deadline = deadline
        self.size_bytes = len(request)

    def prepare(self) -> Sequence[Command | Exception]:
        """See Submission."""
        if self._stream is not None and self._stream.failure is not None:
            raise self._stream.failure
        self._prepared = self._method.prepare(self._request, self._call_metadata)
        return self._prepared

    def answer(self, outcomes: Sequence[Outcome | Exception]) -> None:
        """See Submission."""
        self._reply(lambda: self._method.reply(self._prepared, outcomes))

    def refuse(self, error: Exception) -> None:
        """See Submission."""
        self._reply(lambda: self._method.refusal(self._request, error))

    def _reply(self, make: Callable[[], Reply]) -> None:
        try:
            reply = make()
        except Exception as error:  # noqa: BLE001 - it is the answer
            answer = answer_to(error, self._method.path)
            if self._stream is not None and self._stream.failure is None:
                self._stream.failure = AnsweredElsewhere(answer)
            code, message, trailing_metadata = answer
            self._answer((self._number, code.value[0], message, trailing_metadata))
        else:
            self._answer((self._number, None, reply.response, reply.replayed))
