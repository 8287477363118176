"""The relay: publishes the log to the stream, in order, and tells everybody how far the log has got.

It keeps no state of its own: where to go on is the stream's last sequence (invariant 5). On start, on every reconnect
and after every refused batch it compares the stream's end with the log (invariant 6).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import nats.errors

from cqrs import failpoints
from cqrs.broker.connection import BrokerConnection
from cqrs.errors import HistoryDiverged, UnsupportedBroker
from cqrs.records import EventRecord, chain_hash
from cqrs.relay.heartbeat import Heartbeat
from cqrs.relay.lease import LeaseKeeper, RelayLease, SoleRelay
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.news import CommitNews
from cqrs.relay.publish import MAX_BATCH, BatchRejected, publish_batch
from cqrs.relay.recent import RecentEvents
from cqrs.relay.stream import StreamSettings, Tail, check_tail, ensure_stream, read_tail
from cqrs.relay.threads import RelayThreads
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.store.port import EventReader, StoreError

_log = get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0
_HALTED_RECHECK_SECONDS = 5.0
_BATCH_BYTES = 8 * 1024 * 1024


class RelayTimes(NamedTuple):
    """How often and how long, in seconds."""

    poll: float = 0.25
    """Look at the log this often when no local commit wakes the relay."""
    check: float = 2.0
    """Look this often whether the stream still is what it was."""
    heartbeat: float = 1.0
    gather: float = 0.01
    """When more is committed while a batch is on its way, wait this long for yet more, so that batches are worth their
    cost. An event that finds the relay idle does not wait."""
    acknowledge: float = 5.0
    """Wait this long for the broker to take a batch."""
    renew: float = 1.0
    """Renew the lease, or ask whether it can be had, this often."""


class RelayState(StrEnum):
    """What the relay is doing."""

    WAITING_FOR_BROKER = "waiting for the broker"
    PUBLISHING = "publishing"
    RETRYING = "retrying"
    HALTED = "halted"
    STANDBY = "standing by: another command server publishes"


class Relay:
    """One per command server; the broker lets only one of several win each position."""

    def __init__(
        self,
        reader: EventReader,
        broker: BrokerConnection,
        stream: StreamSettings,
        metrics: RelayMetrics,
        *,
        max_event_bytes: int,
        on_state: Callable[[RelayState, Exception | None], None],
        lease: RelayLease = SoleRelay(),  # noqa: B008 - has no state
        on_elsewhere: Callable[[int], None] = lambda _position: None,
        times: RelayTimes = RelayTimes(),  # noqa: B008 - immutable
    ) -> None:
        """Build it; `run` makes it work.

        Args:
            reader: the log.
            broker: the connection to NATS.
            stream: which stream.
            metrics: what operators see.
            max_event_bytes: the largest event that commands may make; the broker must take it.
            on_state: told what the relay does now, and the error that keeps it from publishing.
            lease: the right to publish, if several processes append to the log.
            on_elsewhere: told the position that another process has just committed, if the broker brings the news.
            times: intervals.
        """
        self._reader = reader
        self._broker = broker
        self._stream = stream
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes
        self._on_state = on_state
        self._times = times
        self._wake = asyncio.Event()
        self._recent = RecentEvents()
        self._threads = RelayThreads()
        self._is_shared = lease.is_shared
        self._lease = LeaseKeeper(lease, self._threads, times.renew)
        self._news = CommitNews(broker, stream.prefix, self._hear)
        self._on_elsewhere = on_elsewhere
        self._look_at = 0.0
        self._heartbeat = Heartbeat(reader, self._threads, broker, stream.prefix, metrics)
        self._published: int | None = None
        self._stop = StopSignal()
        self._backoff = _FIRST_BACKOFF_SECONDS
        self._epoch = ""
        self._committed = 0
        self.looked = asyncio.Event()
        """Set once log and stream have been compared, however that came out."""
        self.state = RelayState.WAITING_FOR_BROKER

    def committed(self, events: Sequence[EventRecord]) -> None:
        """This process has committed these events just now."""
        self._committed = events[-1].position
        self._recent.add(events)
        self._wake.set()

    def stop(self) -> None:
        """End `run` and `run_heartbeat`."""
        self._stop.set("the relay is told to stop")
        self._wake.set()

    async def finish(self, position: int, seconds: float) -> bool:
        """Wait, `seconds` at most, until the stream has the log up to `position`. For a stop in order."""
        deadline = time.monotonic() + seconds
        while self._published is not None and self._published < position:
            if time.monotonic() > deadline or self.state is not RelayState.PUBLISHING:
                return False
            await self._stop.wait_for(0.01)
        return self._published is not None

    async def run(self) -> None:
        """Publish until `stop`. Failures are logged, counted, shown and tried again; a diverged history halts it."""
        stop = self._stop
        while not stop.is_set():
            self._become(RelayState.WAITING_FOR_BROKER)
            if not await self._broker.wait_connected(stop):
                continue
            try:
                if self._is_shared:
                    await self._news.listen()
                if await self._lease.hold():
                    await self._publish_while_connected()
                else:
                    await self._stand_by()
            except (HistoryDiverged, UnsupportedBroker) as error:
                if self.state is not RelayState.HALTED:
                    _log.error("halted: an operator must act", error=str(error))
                self._metrics.halted.set(1)
                self._become(RelayState.HALTED, error)
                self.looked.set()
                # What halts this process, as a limit of its own that the broker is below, need not halt another.
                await self._lease.give_back()
                await stop.wait_for(_HALTED_RECHECK_SECONDS)
            except (BatchRejected, StoreError, nats.errors.Error, TimeoutError, OSError) as error:
                _log.warning("publishing failed, trying again", error=repr(error), retry_in_seconds=self._backoff)
                await self._retry(error)
            except Exception as error:  # noqa: BLE001 - commands go on whatever is wrong with the stream (invariant 1)
                _log.exception("publishing failed by a defect, trying again", retry_in_seconds=self._backoff)
                await self._retry(error)
        await self._lease.give_back()

    async def run_heartbeat(self) -> None:
        """Every second, until `stop`: tell where the log is, and measure how far the stream is behind it."""
        while not self._stop.is_set():
            if self.state is RelayState.STANDBY:
                self._heartbeat.rest()
            else:
                await self._heartbeat.beat(self._published)
            await self._stop.wait_for(self._times.heartbeat)

    def release(self) -> None:
        """Give the threads back, once `run` and `run_heartbeat` have ended."""
        self._threads.release()

    async def _retry(self, error: Exception) -> None:
        self._metrics.failures.inc()
        self._become(RelayState.RETRYING, error)
        if self._backoff == _LONGEST_BACKOFF_SECONDS:
            await self._lease.give_back()  # another process may be luckier
        await self._stop.wait_for(self._backoff)
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF_SECONDS)

    async def _publish_while_connected(self) -> None:
        stop = self._stop
        connects = self._broker.connects
        tail = await self._find_tail()
        self._metrics.halted.set(0)
        self._become(RelayState.PUBLISHING)
        self.looked.set()
        checked = time.monotonic()
        self._wake.set()
        while not stop.is_set() and self._broker.connected and self._broker.connects == connects:
            if self._heartbeat.epoch != self._epoch:
                _log.warning("the log has begun a new epoch, looking again", epoch=self._heartbeat.epoch)
                return
            self._note_published(tail)
            if not await self._lease.hold():
                return
            if time.monotonic() - checked >= self._times.check:
                if await self._find_tail() != tail:
                    _log.warning("the stream has changed, looking again", position=tail.position)
                    return
                checked = time.monotonic()
            if not await self._is_time_to_look():
                continue
            events = await self._next(tail)
            if events:
                tail = await self._publish(tail, events)
                if self._is_shared:
                    await self._news.tell(tail.position)
                self._backoff = _FIRST_BACKOFF_SECONDS
                if 0 < self._recent.waiting(tail.position) < MAX_BATCH:  # more came while this batch was on its way
                    await stop.wait_for(self._times.gather)
                self._wake.set()  # there may be more than one batch

    async def _stand_by(self) -> None:
        """While another process publishes: see that the stream is the log's, and tell that process of commits."""
        stop = self._stop
        connects = self._broker.connects
        await self._find_tail()
        self._metrics.halted.set(0)
        self._published = None
        self._become(RelayState.STANDBY)
        self.looked.set()
        checked = time.monotonic()
        while not stop.is_set() and self._broker.connected and self._broker.connects == connects:
            if await self._lease.hold():
                return
            self._backoff = _FIRST_BACKOFF_SECONDS
            if self._wake.is_set():
                self._wake.clear()
                await self._news.tell(self._committed)
            if time.monotonic() - checked >= self._times.check:
                await self._find_tail()
                checked = time.monotonic()
            await self._wait_for_commit(self._times.renew)
        if self._wake.is_set() and self._committed:
            await self._news.tell(self._committed)  # what was committed last, before a stop

    def _hear(self, position: int) -> None:
        """Some process, maybe this one, has told how far the log has got."""
        if position > max(self._committed, self._published or 0):
            self._on_elsewhere(position)
            if self.state is not RelayState.STANDBY:
                self._wake.set()

    async def _next(self, tail: Tail) -> list[EventRecord]:
        """What follows on the stream's tail in the log, made sure that it chains from there.

        Raises:
            HistoryDiverged: it does not.
        """
        events = self._recent.take(tail.position + 1, MAX_BATCH, _BATCH_BYTES)
        if events:
            self._check_chain(tail, events[:1])  # the others were chained by this process, just now
        else:
            read = partial(self._reader.read_log, tail.position + 1, MAX_BATCH, _BATCH_BYTES)
            events = await self._threads.run(read)
            self._check_chain(tail, events)
        return events

    def _check_chain(self, tail: Tail, events: list[EventRecord]) -> None:
        previous = tail.hash
        for event in events:
            if chain_hash(previous, event) != event.hash:
                raise HistoryDiverged(
                    f"position {event.position} of the log does not chain from the one before it, behind position "
                    f"{tail.position} of stream {self._stream.name}: they are two histories, or the log was changed",
                    "run `orderstream log verify`, which tells whether the log is right in itself; if it is, "
                    "`orderstream stream reset` makes the stream anew from it",
                )
            previous = event.hash

    async def _publish(self, tail: Tail, events: list[EventRecord]) -> Tail:
        failpoints.reach("relay.before_publish")
        after = await publish_batch(
            self._broker.client, self._stream, self._epoch, tail, events, self._times.acknowledge
        )
        failpoints.reach("relay.after_publish")
        self._metrics.published.inc(len(events))
        self._metrics.batches.inc()
        return after

    async def _find_tail(self) -> Tail:
        """Where the stream ends, made sure that it is a beginning of the log."""
        client = self._broker.client
        if client.max_payload < self._max_event_bytes:
            raise UnsupportedBroker(
                f"the broker takes messages of {client.max_payload} bytes, max_event_bytes is {self._max_event_bytes}: "
                "raise the broker's max_payload or lower max_event_bytes"
            )
        head = await self._threads.run(self._reader.read_head)
        self._epoch = self._heartbeat.epoch = head.epoch
        last = await ensure_stream(client, self._stream, head.epoch)
        tail = await read_tail(client.jetstream(), self._stream, last, head.epoch)
        head = await self._threads.run(self._reader.read_head)
        await self._threads.run(lambda: check_tail(self._stream, tail, head, self._reader))
        return tail

    async def _is_time_to_look(self) -> bool:
        """Wait for a reason to look at the log: a commit, or that none was told of for long.

        False: there is none yet, but other things that are due from time to time may be.
        """
        left = self._look_at - time.monotonic()
        if left > 0:
            await self._wait_for_commit(min(left, self._times.renew))
        if not self._wake.is_set() and time.monotonic() < self._look_at:
            return False
        self._wake.clear()
        self._look_at = time.monotonic() + self._times.poll
        return True

    async def _wait_for_commit(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass  # nobody has told of one

    def _note_published(self, tail: Tail) -> None:
        self._published = tail.position
        self._metrics.position.set(tail.position)

    def _become(self, state: RelayState, error: Exception | None = None) -> None:
        if state is RelayState.WAITING_FOR_BROKER and self._broker.connected:
            return
        if state is not self.state:
            _log.info("relay", state=state.value, position=self._published)
            self.state = state
        self._on_state(state, error)
