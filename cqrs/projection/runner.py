"""Runs one projection: from its checkpoint along the log, through every trouble that passes, until told to stop."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError

from cqrs.errors import OperatorError, OrderstreamError
from cqrs.projection.chain import Delivery, check_chain, check_same
from cqrs.projection.checkpoint import Checkpoint
from cqrs.projection.history_watch import HistoryWatch
from cqrs.projection.log_reader import LogReader, LogUnavailable
from cqrs.projection.notifications import change_message, publish_changes
from cqrs.projection.projection import Projection
from cqrs.projection.status import CATCHING_UP, HALTED, LIVE, RETRYING, STARTING, ProjectionStatus
from cqrs.projection.store import Applied, ProjectionStore
from cqrs.projection.stream import ConsumerLost, PullConsumer, StreamEnd, StreamMissing, bind_consumer, read_end
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.subjects import changes_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.projections.v1.projection_service_pb2 import ProjectionState

_log = get_logger(__name__)

_API_SECONDS = 2.0
"""How long a request to JetStream's API may take."""

_HALTED_RECHECK_SECONDS = 5.0
"""Halted, look this often whether a person has mended it."""

_CONFIRM_PAUSE_SECONDS = 0.2

_CONNECT_SECONDS = 1.0
"""At the start of the process, how long the broker may take before its absence is shown."""

ResultT = TypeVar("ResultT")


class Broker(Protocol):
    """The connection to the broker, which may come and go."""

    @property
    def client(self) -> Client:
        """The client; usable once `wait_connected` has returned True."""

    @property
    def connected(self) -> bool:
        """Whether it is connected now."""

    @property
    def connects(self) -> int:
        """How often it has connected. Pulls do not outlive a connection."""

    async def wait_connected(self, stop: StopSignal) -> bool:
        """Wait for a connection; False if the process should stop first."""


class HistoryInDoubt(OrderstreamError):
    """The heartbeats are not of the read model's history, and the log cannot be asked what it has."""


class _StopAsked(Exception):
    """The process should stop."""


class RunnerOptions(NamedTuple):
    """How a projection is run."""

    stream: str
    subject_prefix: str
    batch_events: int = 1000
    """The most events of a transaction."""
    batch_bytes: int = 8 * 1024 * 1024
    """The most bytes of a transaction's events; the last one may exceed it."""
    confirm_seconds: float = math.inf
    """How long to wait for the log to confirm the stream, each time that the stream is bound."""
    retry_min_seconds: float = 0.05
    retry_max_seconds: float = 2.0
    """Backoff doubles from the one to the other, with jitter, and starts anew after progress."""


class Observer(Protocol):
    """Is told what happens. Called on the event loop's thread."""

    def committed(self, status: ProjectionStatus, events: int, seconds: float) -> None:
        """A batch of `events` was committed; verifying, applying and committing it took `seconds`."""

    def changed(self, status: ProjectionStatus) -> None:
        """State or error of the projection changed."""


class ProjectionRunner:
    """One projection in one slot (0). Independent of all others: its own thread, consumer, checkpoint and retries."""

    def __init__(
        self,
        projection: Projection,
        store: ProjectionStore,
        *,
        broker: Broker,
        log: LogReader,
        options: RunnerOptions,
        observer: Observer,
    ) -> None:
        self._projection = projection
        self._store = store
        self._broker = broker
        self._log = log
        self._options = options
        self._changes_subject = changes_subject(options.subject_prefix, projection.name)
        self._observer = observer
        self._stop = StopSignal()
        self._unproven = False
        self._watch = HistoryWatch()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"projection-{projection.name}")
        self.status = ProjectionStatus(projection.name)

    def heard(self, heartbeat: LogHeartbeat) -> None:
        """The relay has told where the log is. If that does not fit the read model, the log is asked (invariant 6)."""
        if self._watch.heard(heartbeat):
            self.status.lag.heard(heartbeat.position)

    async def run(self, stop: StopSignal) -> None:
        """Apply the log until the process should stop. A batch that is being committed is finished first.

        Trouble that may pass (broker, database, an event that cannot be applied) is retried with backoff for as long as
        it lasts; what a person must mend (HistoryDiverged, another code version) halts the projection. `status` shows
        both.
        """
        attempt = 0
        self._stop = stop
        try:
            while not stop.is_set():
                commits = self.status.commits
                try:
                    await self._session(stop)
                except _StopAsked:
                    break
                except OperatorError as error:
                    self._halt(error)
                    await stop.wait_for(_HALTED_RECHECK_SECONDS)
                except Exception as error:  # noqa: BLE001 - logged, shown and retried; only a stop ends the projection
                    attempt = 1 if self.status.commits > commits else attempt + 1
                    self._retry(error)
                    await stop.wait_for(self._backoff(attempt))
        finally:
            self._thread.submit(self._store.close)
            await asyncio.to_thread(self._thread.shutdown)

    async def _session(self, stop: StopSignal) -> None:
        """From reading the checkpoint to the first trouble or the stop."""
        checkpoint = await self._on_thread(self._store.open)
        self._stands(checkpoint)
        await self._settle_doubt(checkpoint)
        if not await self._connected(stop):
            return
        options = self._options
        client, connects = self._broker.client, self._broker.connects
        durable = f"projector-{self._projection.name}-g{checkpoint.generation}-s{checkpoint.slot}"
        js = client.jetstream(timeout=_API_SECONDS)
        stream = await self._unless_stopped(bind_consumer(js, options.stream, durable, checkpoint))
        self.status.lag.heard(stream.last_position)
        if stream.last_position <= checkpoint.position:
            if checkpoint.position:
                await self._compare_with_log(checkpoint)
        elif stream.last_position > checkpoint.position:
            await self._confirm(await self._unless_stopped(read_end(js, options.stream, stream)))
        epoch = checkpoint.epoch or stream.epoch
        live_from = stream.last_position
        if not self._unproven:
            self._works(live_from)
        async with PullConsumer(
            client, options.stream, durable, stop, ahead_events=options.batch_events, ahead_bytes=options.batch_bytes
        ) as consumer:
            while not stop.is_set():
                something_came = await consumer.wait()
                if self._broker.connects != connects:
                    raise ConsumerLost("the connection to the broker was lost and made again")
                await self._settle_doubt(checkpoint)
                if something_came:
                    checkpoint = await self._advance(consumer, checkpoint, epoch)
                if something_came or not self._unproven or checkpoint.position >= live_from:
                    self._works(live_from)
                self.status.alive_time = time.time_ns() // 1000
                await consumer.pull_ahead()

    async def _connected(self, stop: StopSignal) -> bool:
        """Wait for the broker; False if the process should stop first."""
        if not self._broker.connected:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS if self.status.state == STARTING else 0):
                    return await self._broker.wait_connected(stop)
            except TimeoutError:
                self._show(RETRYING, "the broker is away")
        return await self._broker.wait_connected(stop)

    async def _advance(self, consumer: PullConsumer, checkpoint: Checkpoint, epoch: str) -> Checkpoint:
        """Apply what comes next; returns the new checkpoint."""
        options = self._options
        batch = consumer.take(checkpoint.position, options.batch_events, options.batch_bytes)
        deliveries = batch.deliveries
        if batch.repeated is not None:
            check_same(checkpoint, batch.repeated)
        if batch.missing_to:
            gap = await self._unless_stopped(
                self._log.read_gap(checkpoint.position + 1, batch.missing_to, options.batch_events)
            )
            deliveries = gap.deliveries
            self.status.healed_events += len(deliveries)
            _log.info(
                "the stream lacked events, read from the log",
                projection=self.status.name,
                first=deliveries[0].position,
                last=deliveries[-1].position,
            )
        if deliveries:
            self.status.lag.heard(deliveries[-1].position)
            # The next batch comes in while this one commits.
            await consumer.pull_ahead()
            checkpoint = await self._apply(checkpoint, epoch, deliveries)
        if batch.ack:
            await consumer.acknowledge(batch.ack)
        return checkpoint

    async def _apply(self, checkpoint: Checkpoint, epoch: str, deliveries: list[Delivery]) -> Checkpoint:
        started = time.perf_counter()
        applied = await self._on_thread(lambda: self._check_and_apply(checkpoint, epoch, deliveries))
        events = applied.checkpoint.position - checkpoint.position
        if events:
            await self._tell(checkpoint, applied)
            self.status.applied_events += events
            self.status.commits += 1
            self._stands(applied.checkpoint)
            self._observer.committed(self.status, events, time.perf_counter() - started)
        if applied.failure is not None:
            raise applied.failure
        return applied.checkpoint

    def _check_and_apply(self, checkpoint: Checkpoint, epoch: str, deliveries: list[Delivery]) -> Applied:
        return self._store.apply(checkpoint, epoch, check_chain(checkpoint, epoch, deliveries))

    async def _tell(self, before: Checkpoint, applied: Applied) -> None:
        """Tell the query servers. They notice a notification that is lost, and then forget what they have cached."""
        if not self._broker.connected:
            return
        message = change_message(self.status.name, before, applied.checkpoint, applied.changed)
        try:
            await publish_changes(self._broker.client, self._changes_subject, message)
        except NatsError as error:
            _log.warning("a change notification was not sent", projection=self.status.name, error=str(error))

    async def _confirm(self, end: StreamEnd) -> None:
        """Ask the log whether it has what the stream ends with, before anything of the stream is applied.

        The log is the only truth (invariant 1): a stream that has outlived a restore of the log holds a branch that the
        log has lost, and it chains. A log that cannot be asked is waited for, and shown: behind is better than wrong.
        """
        give_up = time.monotonic() + self._options.confirm_seconds
        while True:
            try:
                await self._unless_stopped(self._log.check_end(end))
                return
            except LogUnavailable as error:
                if time.monotonic() >= give_up:
                    _log.warning(
                        "going on although the log has not confirmed the stream",
                        projection=self.status.name,
                        stream_position=end.position,
                        error=str(error),
                    )
                    return
                self._show(RETRYING, f"waiting for the log to confirm the stream: {error}")
                if await self._stop.wait_for(_CONFIRM_PAUSE_SECONDS):
                    raise _StopAsked from None

    async def _compare_with_log(self, checkpoint: Checkpoint) -> None:
        """The stream ends before the checkpoint: it is being refilled, or the read model is of another history."""
        try:
            await self._unless_stopped(self._log.check(checkpoint))
        except LogUnavailable as error:
            # The next event has to chain from the checkpoint, so going on is safe; this check only tells it earlier.
            _log.warning(
                "the checkpoint could not be compared with the log", projection=self.status.name, error=str(error)
            )

    async def _settle_doubt(self, checkpoint: Checkpoint) -> None:
        """If heartbeats do not fit the checkpoint, ask the log whether it has its event.

        Raises:
            HistoryInDoubt: it cannot be asked.
        """
        doubt = self._watch.suspicion
        if not doubt:
            return
        try:
            await self._unless_stopped(self._log.check(checkpoint))
        except LogUnavailable as error:
            raise HistoryInDoubt(f"{doubt}; nothing is applied until the log says what it has: {error}") from error
        if self._watch.confirmed():
            _log.warning(
                "the log has what the read model applied: another log's heartbeats come on the same subject",
                projection=self.status.name,
                heartbeats=doubt,
            )

    def _stands(self, checkpoint: Checkpoint) -> None:
        self._watch.stands(checkpoint)
        status = self.status
        status.generation = checkpoint.generation
        status.position = checkpoint.position
        status.position_time = checkpoint.record_time
        status.alive_time = time.time_ns() // 1000
        status.lag.applied(checkpoint.position)

    def _works(self, live_from: int) -> None:
        """Nothing stands in the way (any more)."""
        self._unproven = False
        self._show(LIVE if self.status.position >= live_from else CATCHING_UP)

    def _show(self, state: ProjectionState.ValueType, error: str = "") -> None:
        status = self.status
        if (status.state, status.error) == (state, error):
            return
        status.state, status.error = state, error
        self._observer.changed(status)

    def _halt(self, error: OperatorError) -> None:
        if self.status.state != HALTED:
            _log.error(
                "projection halted", projection=self.status.name, position=self.status.position, error=str(error)
            )
        self._show(HALTED, str(error))

    def _retry(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self.status.error:
            _log.warning("projection held up, retrying", projection=self.status.name, error=text)
        self.status.retries += 1
        # What failed in applying is not mended by a new consumer: it shows as held up until something has been applied.
        self._unproven = not isinstance(error, (ConsumerLost, StreamMissing, NatsError))
        self._show(RETRYING, text)

    def _backoff(self, attempt: int) -> float:
        options = self._options
        ceiling: float = min(options.retry_max_seconds, options.retry_min_seconds * 2.0 ** min(attempt - 1, 30))
        return ceiling * random.uniform(0.5, 1.0)

    async def _unless_stopped(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Do what may take long and changes nothing here; give it up when the process should stop."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _StopAsked
            return await working
        finally:
            stopping.cancel()
            working.cancel()

    async def _on_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
