"""What a batch of commands would write, decided in memory in order: later commands see what earlier ones did.

A plan is made for one head of the log. If the head turns out to be another under the lock, a new plan is made there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from google.protobuf.message import Message

from cqrs.commit.aggregates import AggregateState, LoadedAggregate, UnknownEvent, UnreadableAggregate
from cqrs.commit.command import Command, Outcome
from cqrs.errors import AggregateIdTaken, EventTooLarge, RequestIdReused, VersionConflict, detach
from cqrs.ids import new_id
from cqrs.records import EventRecord, LogHead, hash_columns, to_timestamp
from cqrs.store.port import StoredResult
from cqrs.tokens import encode_token_bytes

_ENVELOPE_BYTES = 2048
"""More than what the envelope and the headers add to an event's data and metadata."""


@dataclass(slots=True)
class Plan:
    """The writes and the outcomes of a batch."""

    base: LogHead
    """The head that the plan continues."""
    head: LogHead
    """The head after it."""
    events: list[EventRecord] = field(default_factory=list)
    results: list[StoredResult] = field(default_factory=list)
    outcomes: list[Outcome | Exception] = field(default_factory=list)
    """One for each command, in order: what to answer once the plan is committed."""
    states: dict[str, AggregateState] = field(default_factory=dict)
    """The aggregates that the batch touched, as they are after it."""
    replayed: int = 0
    """How many outcomes are stored ones, given again."""

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.events or self.results)


class Planner:
    """Makes plans."""

    def __init__(self, max_event_bytes: int, *expected: type[Exception]) -> None:
        """Refuse events that would be larger than `max_event_bytes` on the broker, envelope included.

        `expected` are the errors by which decisions say no: they are answers, not defects.
        """
        self._max_event_bytes = max_event_bytes
        self._expected = expected

    def plan(
        self,
        base: LogHead,
        commands: Sequence[Command],
        states: Mapping[str, AggregateState],
        stored: Mapping[str, StoredResult],
        now: int,
    ) -> Plan:
        """Decide `commands` in order on top of `base`.

        Args:
            base: the head of the log.
            commands: what to decide.
            states: every aggregate that the commands touch or refer to, as of `base` (None: it does not exist).
            stored: outcomes that the log has for request ids of these commands.
            now: the clock, in microseconds since 1970. Record times never run behind `base`.
        """
        record_time = max(now, base.record_time)
        plan = Plan(base, base, states=dict(states))
        known = dict(stored)
        batch = _Batch(plan, record_time, UUID(base.epoch).bytes, self._max_event_bytes)
        for command in commands:
            try:
                plan.outcomes.append(batch.decide(command, known))
            except Exception as error:  # noqa: BLE001 - the outcome of this one command, raised again where it is awaited
                plan.outcomes.append(detach(error, *self._expected))
        return plan


class _Batch:
    """A plan in the making."""

    def __init__(self, plan: Plan, record_time: int, epoch: bytes, max_event_bytes: int) -> None:
        self._plan = plan
        self._record_time = record_time
        self._now = to_timestamp(record_time)
        self._epoch = epoch
        self._max_event_bytes = max_event_bytes

    def decide(self, command: Command, known: dict[str, StoredResult]) -> Outcome:
        """Decide one command. Order of the checks (invariant 4): request id, expected version, rules."""
        plan, request_id = self._plan, command.request_id
        if request_id is not None:
            result = known.get(request_id)
            if result is not None:
                if result.fingerprint != command.fingerprint:
                    raise RequestIdReused(request_id)
                plan.replayed += 1
                return Outcome(result.response, replayed=True)
        loaded = self._state(command.aggregate_id)
        version = 0 if loaded is None else loaded.version
        if loaded is not None and loaded.type_name != command.aggregate_type.name:
            raise AggregateIdTaken(command.aggregate_id, loaded.type_name)
        if command.expected_version is not None and command.expected_version != version:
            raise VersionConflict(command.aggregate_id, command.expected_version, version)
        references = [self._reference(type_.name, id_) for type_, id_ in command.references]
        decided = command.decide(None if loaded is None else loaded.state, self._now, references)
        if decided:
            loaded = self._record(command, loaded, decided)
        if loaded is None:
            raise RuntimeError(f"{command.method} decided nothing for an aggregate that does not exist")
        token = encode_token_bytes(self._epoch, plan.head.position)
        response = command.respond(loaded.state, loaded.version, token)
        if request_id is not None:
            result = StoredResult(request_id, command.fingerprint, response, self._record_time)
            known[request_id] = result
            plan.results.append(result)
        return Outcome(response, replayed=False)

    def _state(self, aggregate_id: str) -> LoadedAggregate | None:
        state = self._plan.states.get(aggregate_id)
        if isinstance(state, UnreadableAggregate):
            raise UnknownEvent(state.reason)
        return state

    def _reference(self, type_name: str, aggregate_id: str) -> Message | None:
        loaded = self._state(aggregate_id)
        return loaded.state if loaded is not None and loaded.type_name == type_name else None

    def _record(self, command: Command, before: LoadedAggregate | None, decided: Sequence[Message]) -> LoadedAggregate:
        """Give the events their place in the log, and the aggregate its new state. All of them, or none."""
        plan, type_ = self._plan, command.aggregate_type
        state = type_.state()
        version = 0
        if before is not None:
            state.CopyFrom(before.state)
            version = before.version
        metadata = command.metadata
        position, previous_hash = plan.head.position, plan.head.hash
        records = []
        for event in decided:
            type_.evolve(state, event)
            position += 1
            version += 1
            data = event.SerializeToString(deterministic=True)
            if len(data) + _ENVELOPE_BYTES > self._max_event_bytes:
                raise EventTooLarge(len(data) + _ENVELOPE_BYTES, self._max_event_bytes)
            columns = (
                position,
                new_id(),
                type_.name,
                command.aggregate_id,
                version,
                event.DESCRIPTOR.full_name,
                self._record_time,
                command.request_id,
                metadata.correlation_id,
                metadata.causation_id,
                metadata.actor,
                metadata.traceparent,
                data,
            )
            previous_hash = hash_columns(previous_hash, columns, metadata.reason)
            records.append(EventRecord(*columns, previous_hash, metadata.reason))
        plan.events.extend(records)
        plan.head = LogHead(position, previous_hash, plan.head.epoch, self._record_time)
        after = LoadedAggregate(type_.name, state, version)
        plan.states[command.aggregate_id] = after
        return after
