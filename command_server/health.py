"""What the command server needs to do its work, and what else an operator should see."""

from __future__ import annotations

from collections.abc import Callable

from cqrs.errors import HistoryDiverged
from cqrs.relay.relay import RelayState
from cqrs.serving.health import Readiness

_STORE, _HISTORY, _RELAY, _BROKER = "write DB", "history", "relay", "broker"


class CommandServerHealth:
    """Keeps the readiness of the process.

    Commands are accepted whatever the broker does (invariant 1): relay and broker are shown and do not count. Only a
    stream that tells another history takes the server out of service, since somebody must decide which one is true.
    """

    def __init__(self, readiness: Readiness, on_history: Callable[[str], None]) -> None:
        """Keep `readiness`; tell `on_history` why no command may be taken, or an empty text."""
        self._readiness = readiness
        self._on_history = on_history
        readiness.require(_STORE, "not opened yet")
        readiness.require(_HISTORY, "not looked at yet")
        readiness.require(_RELAY, "starting", essential=False)
        readiness.require(_BROKER, "not connected yet", essential=False)

    def opened(self) -> None:
        """The write DB is open. The broker may be away: until it says otherwise, there is one history."""
        self.store(None)
        self._readiness.set(_HISTORY, None)

    def store(self, why_not: str | None) -> None:
        """Whether the write DB works."""
        self._readiness.set(_STORE, why_not)

    def relay(self, state: RelayState, error: Exception | None) -> None:
        """What the relay does, and the error that keeps it from publishing."""
        works = state in (RelayState.PUBLISHING, RelayState.STANDBY)
        self._readiness.set(_RELAY, None if works else f"{state}: {error}" if error else str(state))
        if isinstance(error, HistoryDiverged):
            self._readiness.set(_HISTORY, str(error))
            self._on_history(str(error))
        elif works:
            self._readiness.set(_HISTORY, None)
            self._on_history("")

    async def broker_connected(self) -> None:
        """The broker is there."""
        self._readiness.set(_BROKER, None)

    async def broker_disconnected(self) -> None:
        """The broker is away."""
        self._readiness.set(_BROKER, "disconnected")
