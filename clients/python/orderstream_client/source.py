"""Where the commands of a stream come from: taken a message at a time, as far ahead as they are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any


class Source:
    """Commands from an iterable or an asynchronous one.

    Of a plain iterable a message takes as many as fit. Of an asynchronous one it takes what is there, and waits only
    for the first: commands that come in slowly are not held back to fill a message.
    """

    def __init__(
        self,
        commands: Iterable[Any] | AsyncIterable[Any],
        prepare: Callable[[Any], None],
        max_commands: int,
        max_bytes: int,
    ) -> None:
        """Read `commands`, each of which goes through `prepare`; a message has at most so many, and so many bytes."""
        self._commands = commands
        self._prepare = prepare
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._iterator: Iterator[Any] | None = None if isinstance(commands, AsyncIterable) else iter(commands)
        self._queue: asyncio.Queue[Any] = asyncio.Queue(max_commands)
        self._pulling: asyncio.Task[None] | None = None
        self._held: Any = None
        """Taken, but too large for the message that it was taken for."""
        self._ended = False
        self._failure: Exception | None = None

    async def take(self) -> list[Any]:
        """The commands of the next message; none at the end. Nothing is lost if this is cancelled."""
        taken: list[Any] = []
        size = 0
        while len(taken) < self._max_commands:
            command, self._held = self._held, None
            if command is None:
                command = await self._next(wait=not taken)
            if command is None:
                break
            bytes_more = command.ByteSize() + _FRAME_BYTES
            if taken and size + bytes_more > self._max_bytes:
                self._held = command
                break
            size += bytes_more
            taken.append(command)
        return taken

    def check(self) -> None:
        """At the end: raises what the iterable raised, if it did."""
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Take no more."""
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.wait([self._pulling])

    async def _next(self, *, wait: bool) -> Any:
        """The next command; None at the end, or if there is none yet and `wait` is not set."""
        if self._ended:
            return None
        try:
            command = next(self._iterator) if self._iterator is not None else await self._pulled(wait=wait)
            if command is not None:
                self._prepare(command)
        except (StopIteration, StopAsyncIteration):
            self._ended = True
            return None
        except Exception as error:  # noqa: BLE001 - raised again by `check`, when all before it have their outcome
            self._failure = error
            self._ended = True
            return None
        return command

    async def _pulled(self, *, wait: bool) -> Any:
        if self._pulling is None:
            # A task that outlives the streams: to cancel an asynchronous generator in the middle would end it.
            self._pulling = asyncio.create_task(self._pull())
        if self._queue.empty() and not wait:
            return None
        command = await self._queue.get()
        if isinstance(command, _End):
            raise command.why
        return command

    async def _pull(self) -> None:
        why: Exception = StopAsyncIteration()
        try:
            async for command in self._commands:  # type: ignore[union-attr] # there is no iterator, so it is asynchronous
                await self._queue.put(command)
        except Exception as error:  # noqa: BLE001 - raised where the end is reached
            why = error
        await self._queue.put(_End(why))


class _End:
    def __init__(self, why: Exception) -> None:
        self.why = why


_FRAME_BYTES = 10
"""What a command takes in its message beside its own bytes, at most."""
