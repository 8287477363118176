"""GetAggregateState: an aggregate's state, as it is or as it was."""

from __future__ import annotations

import time

from google.protobuf.any_pb2 import Any

from command_server.events.requests import WantedState, check_aggregate_state
from command_server.events.store_access import ReaderThreads
from cqrs.commit.aggregates import UnknownEvent, UnreadableAggregate
from cqrs.errors import AggregateNotFound, NotReached
from cqrs.records import to_timestamp
from cqrs.snapshots.history import PastFold
from cqrs.snapshots.rules import Snapshots
from cqrs.snapshots.snapshot import LARGEST, Bound
from cqrs.store.port import EventReader
from orderstream.events.v1.event_service_pb2 import GetAggregateStateRequest, GetAggregateStateResponse


class AggregateStates:
    """Answers GetAggregateState."""

    def __init__(self, reader: EventReader, threads: ReaderThreads, snapshots: Snapshots) -> None:
        """Fold what `reader` reads, on `threads`, from `snapshots` where there are any."""
        self._reader = reader
        self._threads = threads
        self._snapshots = snapshots

    async def get(self, request: GetAggregateStateRequest) -> GetAggregateStateResponse:
        """See the contract.

        Raises:
            InvalidRequest: a field is malformed, or the time lies in the future.
            AggregateNotFound: no such id, or not yet at that point.
            NotReached: the version or position lies ahead.
            StoreUnavailable: the write DB failed.
            UnknownEvent: the log has an event of it that this code does not know.
        """
        wanted = check_aggregate_state(request, await self._latest_time(request))
        if wanted.position is not None:
            head = await self._threads.read(self._reader.read_head)
            if wanted.position > head.position:
                raise NotReached("position", wanted.position, head.position)
        past = PastFold(self._reader, self._snapshots, wanted.aggregate_id, _bound(wanted))
        # In steps: between them, others have their turn on the threads.
        while not await self._threads.read(past.step):
            pass
        return _answer(wanted, past)

    async def _latest_time(self, request: GetAggregateStateRequest) -> int:
        """The latest time that does not lie in the future, in microseconds since 1970.

        That of the last event does not, whatever this host's clock says.
        """
        now = time.time_ns() // 1000
        if request.WhichOneof("at") == "time" and request.time.seconds * 1_000_000 >= now - 1_000_000:
            return max(now, (await self._threads.read(self._reader.read_head)).record_time)
        return now


def _bound(wanted: WantedState) -> Bound:
    return Bound(
        version=LARGEST if wanted.version is None else wanted.version,
        position=LARGEST if wanted.position is None else wanted.position,
        record_time=LARGEST if wanted.time is None else wanted.time,
    )


def _answer(wanted: WantedState, past: PastFold) -> GetAggregateStateResponse:
    fold = past.fold
    state = None if fold is None else fold.result()
    if isinstance(state, UnreadableAggregate):
        raise UnknownEvent(state.reason)
    if fold is None or fold.last is None or state is None:
        at_a_point = wanted.position is not None or wanted.time is not None
        raise AggregateNotFound(wanted.aggregate_id, "at that point" if at_a_point else "")
    if wanted.version is not None and state.version < wanted.version:
        raise NotReached("version", wanted.version, state.version)
    packed = Any()
    packed.Pack(state.state)
    return GetAggregateStateResponse(
        aggregate_id=wanted.aggregate_id,
        aggregate_type=state.type_name,
        version=state.version,
        position=fold.last.position,
        record_time=to_timestamp(fold.last.record_time),
        state=packed,
    )
