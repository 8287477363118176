"""GetCausationTree: what led to what within one business process.

An event names its cause by its causation id: the id of an event, or the request id of a command, which then stands for
the last event of that command. Down the tree an index leads. Up it there is none, as every command would pay for it:
the time says where in the log to look, that of the command's outcome or the one that a UUID of version 7 begins with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from uuid import UUID

from command_server.events.requests import WantedTree
from command_server.events.store_access import ReaderThreads
from cqrs.errors import NotReached
from cqrs.records import EventRecord, to_wire
from cqrs.store.port import ENVELOPE_BYTES
from cqrs.store.queries import SCAN_POSITIONS, LogQueries
from orderstream.events.v1.event_service_pb2 import CausationNode, GetCausationTreeResponse

_IDS_PER_READ = 500

_LOOK_UPS = 200
"""Causes that are looked for outside of what is known already, in one call."""

_AROUND = SCAN_POSITIONS // 2
"""How many positions before and behind the time in an id are looked at. Events carry the time at which their batch was
begun, and their ids are made a little later; a request id is older than its events, by the clock of another host."""


class CausationTrees:
    """Answers GetCausationTree."""

    def __init__(self, queries: LogQueries, threads: ReaderThreads, max_bytes: int) -> None:
        """Ask `queries`, on `threads`, for answers of about `max_bytes` bytes at most."""
        self._queries = queries
        self._threads = threads
        self._max_bytes = max_bytes

    async def get(self, wanted: WantedTree) -> GetCausationTreeResponse:
        """See the contract.

        Raises:
            NotReached: the position lies ahead.
            StoreUnavailable: the write DB failed.
        """
        tree = _Tree(self._queries, self._threads, wanted.max_events, self._max_bytes)
        if wanted.correlation_id is not None:
            await tree.begin_with_correlated(wanted.correlation_id)
        elif wanted.position is not None:
            await tree.begin_with_position(wanted.position)
        return tree.answer()


class _Tree:
    """A tree in the making."""

    def __init__(self, queries: LogQueries, threads: ReaderThreads, max_events: int, max_bytes: int) -> None:
        self._queries = queries
        self._threads = threads
        self._max_events = max_events
        self._bytes_left = max_bytes
        self._looked_up: dict[str, EventRecord | None] = {}
        self._events: dict[int, EventRecord] = {}
        self._by_event_id: dict[str, int] = {}
        self._by_request_id: dict[str, list[int]] = {}
        self._parents: dict[int, int] = {}
        self._truncated = False

    async def begin_with_correlated(self, correlation_id: str) -> None:
        """All events of a business process, and what they led to."""
        find = partial(self._queries.find_correlated, correlation_id, self._max_events, self._bytes_left)
        found = await self._threads.read(find)
        self._truncated = found.more
        self._keep(found.events)
        await self._descend(found.events, correlation_id)
        for event in sorted(self._events.values()):
            if event.causation_id is not None and not self._known_parent(event):
                parent = await self._find_parent(event)
                self._parents[event.position] = 0 if parent is None else parent.position

    async def begin_with_position(self, position: int) -> None:
        """One event, what led to it and what it led to."""
        around = await self._threads.read(partial(self._queries.read_log, position, 2))
        if not around or around[0].position != position:
            head = await self._threads.read(self._queries.read_head)
            raise NotReached("position", position, head.position)
        event, behind = around[0], around[1:]
        self._keep([event])
        await self._ascend(event)
        is_last_of_command = not behind or not _same_command(event, behind[0])
        await self._descend([event], None, by_request=is_last_of_command)

    def answer(self) -> GetCausationTreeResponse:
        """The tree as it is known now."""
        depths: dict[int, int] = {}
        nodes = []
        for position, event in sorted(self._events.items()):
            parent = self._known_parent(event) or self._parents.get(position, 0)
            depths[position] = depths[parent] + 1 if parent in depths else 0
            nodes.append(CausationNode(event=to_wire(event), parent_position=parent, depth=depths[position]))
        return GetCausationTreeResponse(nodes=nodes, truncated=self._truncated)

    async def _ascend(self, event: EventRecord) -> None:
        """From cause to cause."""
        while event.causation_id is not None:
            parent = await self._find_parent(event)
            if parent is None:
                self._truncated = event.causation_id not in self._looked_up and event.causation_id != event.request_id
                return
            if not self._has_room(parent):
                self._truncated = True
                self._parents[event.position] = parent.position
                return
            self._parents[event.position] = parent.position
            self._keep([parent])
            event = parent

    async def _descend(
        self, events: Sequence[EventRecord], correlation_id: str | None, *, by_request: bool = True
    ) -> None:
        """From effect to effect, level by level, until there is no more or no more room."""
        asked: set[str] = set()
        while events and not self._truncated:
            ids = {event.event_id for event in events}
            if by_request:
                ids.update(event.request_id for event in events if event.request_id is not None)
            by_request = True
            level: list[EventRecord] = []
            for part in _parts(sorted(ids - asked)):
                room = self._max_events - len(self._events)
                find = partial(self._queries.find_caused, part, room, max(0, self._bytes_left), correlation_id)
                found = await self._threads.read(find)
                effects = [event for event in found.events if self._is_new_effect(event)]
                self._keep(effects)
                level += effects
                if found.more:
                    self._truncated = True
                    return
            asked |= ids
            events = level

    def _is_new_effect(self, event: EventRecord) -> bool:
        """Whether it is not in the tree yet, and something there led to it."""
        return event.position not in self._events and self._known_parent(event) > 0

    def _known_parent(self, event: EventRecord) -> int:
        """The position of what led to an event, if that is in the tree; else 0."""
        cause = event.causation_id
        if cause is None or cause == event.request_id:
            return 0
        by_id = self._by_event_id.get(cause, 0)
        if 0 < by_id < event.position:
            return by_id
        earlier = [position for position in self._by_request_id.get(cause, ()) if position < event.position]
        return max(earlier, default=0)

    async def _find_parent(self, event: EventRecord) -> EventRecord | None:
        """What led to an event, from anywhere in the log where it can be looked for."""
        cause = event.causation_id
        if cause is None or cause == event.request_id:
            return None
        if cause not in self._looked_up:
            if len(self._looked_up) == _LOOK_UPS:
                return None
            self._looked_up[cause] = await self._look_up(cause, event)
        parent = self._looked_up[cause]
        return parent if parent is not None and parent.position < event.position else None

    async def _look_up(self, cause: str, effect: EventRecord) -> EventRecord | None:
        committed = await self._threads.read(partial(self._queries.result_time, cause))
        if committed is not None:
            first = await self._threads.read(partial(self._queries.position_at, committed))
            behind = await self._threads.read(partial(self._queries.position_at, committed + 1))
            last = min(behind, effect.position, first + SCAN_POSITIONS) - 1
            parent = await self._threads.read(partial(self._queries.find_request, cause, first, last))
            if parent is not None:
                return parent
        made = _time_of(cause)
        if made is None:
            return None
        near = await self._threads.read(partial(self._queries.position_at, made))
        first, last = near - _AROUND, min(near + _AROUND, effect.position) - 1
        return await self._threads.read(
            lambda: self._queries.find_event(cause, first, last) or self._queries.find_request(cause, first, last)
        )

    def _has_room(self, event: EventRecord) -> bool:
        return len(self._events) < self._max_events and _size(event) <= self._bytes_left

    def _keep(self, events: Sequence[EventRecord]) -> None:
        for event in events:
            self._events[event.position] = event
            self._bytes_left -= _size(event)
            self._by_event_id[event.event_id] = event.position
            if event.request_id is not None:
                self._by_request_id.setdefault(event.request_id, []).append(event.position)


def _same_command(event: EventRecord, next_one: EventRecord) -> bool:
    """Whether the event behind another is of the same command: the events of one lie together, in one transaction."""
    same_request = event.request_id is not None and event.request_id == next_one.request_id
    return same_request and event.record_time == next_one.record_time


def _time_of(text: str) -> int | None:
    """When an id was made, in microseconds since 1970, if it is a UUID of version 7."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return (parsed.int >> 80) * 1000 if parsed.version == 7 else None


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_PER_READ):
        yield ids[start : start + _IDS_PER_READ]


def _size(event: EventRecord) -> int:
    """What an event takes on the wire, at most; characters of the reason may be 4 bytes each."""
    return len(event.data) + ENVELOPE_BYTES + 4 * len(event.reason or "")
