"""In a worker: the committer of the main process, as it were here."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from cqrs.commit.command import CallMetadataPairs
from cqrs.errors import Overloaded
from cqrs.serving.errors import Answer, AnsweredElsewhere
from cqrs.workers.link import Link
from cqrs.workers.requests import Reply

STREAM_ENDS = 0
"""In the place of a request's number: no more requests of a stream follow."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RemoteCommands:
    """Sends requests to the main process, those of one turn of the event loop together."""

    def __init__(self, link: Link, max_unsent_bytes: int) -> None:
        """Use `link`; refuse requests when the main process has left `max_unsent_bytes` unread."""
        self._link = link
        self._max_unsent_bytes = max_unsent_bytes
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._outgoing: list[tuple[Any, ...]] = []
        self._number = 0
        self._stream = 0

    def execute(
        self, method: int, request: bytes, call_metadata: CallMetadataPairs, seconds: float | None, stream: int = 0
    ) -> asyncio.Future[Reply]:
        """Have a request executed, behind all that were before it; the future is done once its events are durable.

        Its exception is AnsweredElsewhere, whatever went wrong. When it is cancelled the commands may still take
        effect.

        Args:
            method: which of the methods that the main process has for its workers.
            request: the request message, serialised.
            call_metadata: what the call's metadata has for events.
            seconds: how long the caller will wait; None: no limit.
            stream: from `open_stream`: the request is not executed if one of the same stream before it has failed.
                0: it is a call by itself.

        Raises:
            Overloaded: the main process does not keep up; the request was not sent. Not for those of a stream: what
                they may be is bounded by a Pace.
        """
        if not stream and self._link.unsent_bytes > self._max_unsent_bytes:
            raise Overloaded("too many commands are waiting: retry later")
        self._number = number = self._number + 1
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = future
        deadline = None if seconds is None else time.monotonic() + seconds
        self._put((number, method, request, call_metadata, deadline, stream))
        return future

    def open_stream(self) -> int:
        """The name of a new stream of requests; to be given to `close_stream` when no more follow."""
        self._stream += 1
        return self._stream

    def close_stream(self, stream: int) -> None:
        """No more requests of this stream follow."""
        self._put((STREAM_ENDS, stream))

    def answered(self, answers: list[tuple[Any, ...]]) -> None:
        """The main process has answered these."""
        for number, code, first, second in answers:
            future = self._waiting.pop(number)
            if future.done():  # cancelled: nobody waits any more
                continue
            if code is None:
                future.set_result(Reply(first, second))
            else:
                future.set_exception(AnsweredElsewhere(Answer(_CODES[code], first, second)))

    def _put(self, message: tuple[Any, ...]) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        self._link.send("requests", self._outgoing)
        self._outgoing = []
