"""Given past events, when a command, then new events or a rejection: how the domain's tests read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from domain.context import Context
from domain.rejection import Rejection

StateT = TypeVar("StateT", bound=Message)

NOW = Timestamp(seconds=1_700_000_000)


class Scenario(Generic[StateT]):
    """One aggregate's past."""

    def __init__(self, state: type[StateT], evolve: Callable[[StateT, Message], None], *past: Message) -> None:
        self._state_type, self._evolve, self._past = state, evolve, past

    @property
    def state(self) -> StateT | None:
        if not self._past:
            return None
        state = self._state_type()
        for event in self._past:
            self._evolve(state, event)
        return state

    def when(
        self, decide: Callable[[Any, Any, Context], Sequence[Message]], command: Message, context: Context | None = None
    ) -> Decision[StateT]:
        return Decision(self, decide, command, context or Context(NOW))

    def after(self, *events: Message) -> StateT:
        state = Scenario(self._state_type, self._evolve, *self._past, *events).state
        assert state is not None
        return state


class Decision(Generic[StateT]):
    """What a decision leads to."""

    def __init__(
        self,
        scenario: Scenario[StateT],
        decide: Callable[[Any, Any, Context], Sequence[Message]],
        command: Message,
        context: Context,
    ) -> None:
        self._scenario, self._decide, self._command, self._context = scenario, decide, command, context

    def _run(self) -> Sequence[Message]:
        state = self._scenario.state
        before = None if state is None else state.SerializeToString(deterministic=True)
        try:
            return self._decide(state, self._command, self._context)
        finally:
            if state is not None:
                assert state.SerializeToString(deterministic=True) == before, "a decision must not change the state"

    def then(self, *expected: Message) -> StateT:
        """These events; returns the state after them."""
        events = self._run()
        assert list(events) == list(expected)
        return self._scenario.after(*events)

    def then_nothing(self) -> None:
        """No events: nothing changed."""
        assert list(self._run()) == []

    def then_rejected(self, reason: str, **metadata: str) -> None:
        """The rejection, with at least this metadata."""
        with pytest.raises(Rejection) as caught:
            self._run()
        assert caught.value.reason == reason
        assert metadata.items() <= caught.value.metadata.items()
