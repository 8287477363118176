"""Messages between the main process and a worker."""

from __future__ import annotations

import asyncio
import marshal
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from cqrs.serving.process import new_event_loop
from cqrs.workers.link import Link


class End:
    """A link that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.lost = asyncio.Event()
        self.caught_up = asyncio.Event()
        self._arrived = asyncio.Event()
        self.link = Link(self._message, self.lost.set, self.caught_up.set)

    def _message(self, message: tuple[Any, ...]) -> None:
        self.messages.append(message)
        self._arrived.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture(params=[asyncio.new_event_loop, new_event_loop], ids=["asyncio", "of the servers"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run_it(scenario: Callable[[], Any]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario())

    return run_it


MESSAGES: Sequence[tuple[Any, ...]] = [
    ("empty",),
    ("requests", [(1, 2, b"bytes\x00", [("x-actor", "ada")], None, 0), (2, 0, b"", None, 12.5, 3)]),
    ("large", b"x" * 5_000_000, "ü" * 1000),
    ("after", -1, True, None),
]


def framed(messages: Sequence[tuple[Any, ...]]) -> bytes:
    bodies = [marshal.dumps(message) for message in messages]
    return b"".join(struct.pack("<I", len(body)) + body for body in bodies)


def test_messages_arrive_whole_and_in_order_from_megabytes_to_nothing(run: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        one, other = socket.socketpair()
        sender, receiver = End(), End()
        await sender.link.open(one)
        await receiver.link.open(other)
        for _ in range(3):
            for message in MESSAGES:
                sender.link.send(*message)
        await receiver.until(3 * len(MESSAGES))
        assert receiver.messages == [*MESSAGES] * 3
        sender.link.close()
        await asyncio.wait_for(receiver.lost.wait(), 5)
        await asyncio.wait_for(sender.lost.wait(), 5)
        sender.link.send("to nobody")

    run(scenario)


def test_messages_are_put_together_from_chunks_of_any_size() -> None:
    data = framed([message for message in MESSAGES if message[0] != "large"] * 20 + [("large", b"y" * 300_000)])
    expected = [message for message in MESSAGES if message[0] != "large"] * 20 + [("large", b"y" * 300_000)]
    sizes = random.Random(3)
    for longest in (1, 3, 5, 100, 70_000, len(data)):
        messages: list[tuple[Any, ...]] = []
        link = Link(messages.append, lambda: None)
        at = 0
        while at < len(data):
            size = sizes.randint(1, longest) if at < 5000 or longest > 5 else 65_536
            link.data_received(data[at : at + size])
            at += size
        assert messages == expected


def test_what_is_sent_before_the_link_is_closed_arrives(run: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        one, other = socket.socketpair()
        sender, receiver = End(), End()
        await sender.link.open(one)
        sender.link.send("last", b"z" * 3_000_000)
        sender.link.close()
        await receiver.link.open(other)
        await receiver.until(1)
        assert receiver.messages == [("last", b"z" * 3_000_000)]

    run(scenario)


def test_an_end_that_does_not_read_is_behind_until_it_has_caught_up(run: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        one, other = socket.socketpair()
        sender, receiver = End(), End()
        await sender.link.open(one)
        for _ in range(30):
            sender.link.send("part", b"z" * 100_000)
        assert sender.link.is_behind
        assert sender.link.unsent_bytes > 1_000_000
        await receiver.link.open(other)
        await asyncio.wait_for(sender.caught_up.wait(), 10)
        assert sender.link.unsent_bytes < 1_000_000
        await receiver.until(30)
        sender.link.close()

    run(scenario)


def test_a_message_that_cannot_be_dealt_with_ends_the_connection_and_is_logged(run: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        def fail(message: tuple[Any, ...]) -> None:
            raise ZeroDivisionError(message[0])

        logged: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        one, other = socket.socketpair()
        sender, lost = End(), asyncio.Event()
        await sender.link.open(one)
        await Link(fail, lost.set).open(other)
        sender.link.send("nonsense")
        await asyncio.wait_for(lost.wait(), 5)
        await asyncio.wait_for(sender.lost.wait(), 5)
        assert isinstance(logged[0]["exception"], ZeroDivisionError)

    run(scenario)
