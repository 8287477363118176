"""Requests of a worker on their way through the committer's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from cqrs.commit.command import CallMetadataPairs, Command, Outcome
from cqrs.errors import InvalidRequest, ServiceError, ShuttingDown, StoreUnavailable, Violation
from cqrs.workers.requests import Reply, Request, Stream

OK = None
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


class Echo:
    """A method whose answer is the request."""

    path = "/example.Service/Echo"
    paced = True

    def count(self, request: bytes) -> int:
        return 1

    def prepare(self, request: bytes, call_metadata: CallMetadataPairs) -> Sequence[Command | Exception]:
        if request == b"malformed":
            raise InvalidRequest([Violation("all", "is wrong")])
        return ()

    def reply(self, prepared: Sequence[Command | Exception], outcomes: Sequence[Outcome | Exception]) -> Reply:
        if outcomes and isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return Reply(b"done", replayed=False)

    def refusal(self, request: bytes, error: Exception) -> Reply:
        raise error


class Answers:
    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.messages: list[Any] = []

    def request(self, request: bytes, stream: Stream | None) -> Request:
        return Request(7, Echo(), request, None, None, stream, self._answer)

    def _answer(self, answer: tuple[Any, ...]) -> None:
        number, code, message, _ = answer
        assert number == 7
        self.codes.append(code)
        self.messages.append(message)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ShuttingDown(), RuntimeError("a defect")])
def test_nothing_of_a_stream_is_executed_behind_a_request_that_failed_as_a_whole(error: Exception) -> None:
    answers, stream = Answers(), Stream()
    first, second, third = (answers.request(b"", stream) for _ in range(3))
    first.prepare()
    first.answer(())
    second.prepare()
    second.refuse(error)
    with pytest.raises(ServiceError) as caught:
        third.prepare()
    third.refuse(caught.value)
    assert answers.codes[0] is OK
    assert answers.messages[1] == answers.messages[2]


def test_a_malformed_request_and_an_answer_that_cannot_be_made_stop_a_stream_as_well() -> None:
    for failing in (b"malformed", b"unanswerable"):
        answers, stream = Answers(), Stream()
        request = answers.request(failing, stream)
        try:
            request.prepare()
            request.answer((StoreUnavailable("away"),))
        except InvalidRequest as error:
            request.refuse(error)
        with pytest.raises(ServiceError):
            answers.request(b"", stream).prepare()


def test_other_streams_and_calls_go_on() -> None:
    answers = Answers()
    answers.request(b"", Stream()).refuse(StoreUnavailable("away"))
    for stream in (Stream(), None, None):
        request = answers.request(b"", stream)
        request.prepare()
        request.answer(())
    call = answers.request(b"", None)
    call.refuse(StoreUnavailable("away"))
    answers.request(b"", None).prepare()
    assert answers.codes == [UNAVAILABLE, OK, OK, OK, UNAVAILABLE]
