"""How much of a worker's streams may wait for the committer at a time."""

from __future__ import annotations

import asyncio
from collections import deque


class Pace:
    """Lets requests in up to a number of commands and of bytes, first come, first served.

    What streams send is not refused when too much waits: it waits here, and each stream's flow control holds its
    sender. So one stream cannot crowd out the others, nor all of them the calls. A request that is larger than the
    limits is let in when nothing else is. To be used on the event loop's thread.
    """

    def __init__(self, max_commands: int, max_bytes: int) -> None:
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._commands = 0
        self._bytes = 0
        self._waiting: deque[tuple[int, int, asyncio.Future[None]]] = deque()

    async def enter(self, commands: int, size_bytes: int) -> None:
        """Wait until a request may be sent. Whoever has entered must `leave`."""
        if not self._waiting and self._has_room(commands, size_bytes):
            self._commands += commands
            self._bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(commands, size_bytes)
            else:
                turn.cancel()
                self._let_in()
            raise

    def leave(self, commands: int, size_bytes: int) -> None:
        """The request is answered."""
        self._commands -= commands
        self._bytes -= size_bytes
        self._let_in()

    def _has_room(self, commands: int, size_bytes: int) -> bool:
        if not self._commands:
            return True
        return self._commands + commands <= self._max_commands and self._bytes + size_bytes <= self._max_bytes

    def _let_in(self) -> None:
        while self._waiting:
            commands, size_bytes, turn = self._waiting[0]
            if not turn.done():
                if not self._has_room(commands, size_bytes):
                    return
                self._commands += commands
                self._bytes += size_bytes
                turn.set_result(None)
            self._waiting.popleft()
