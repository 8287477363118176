"""Where log and stream stand, told to everybody every second, and to operators as the relay's lag."""

from __future__ import annotations

import math
import time

import nats.errors

from cqrs.broker.connection import BrokerConnection
from cqrs.records import LogHead, to_timestamp
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.threads import RelayThreads
from cqrs.serving.logging import get_logger
from cqrs.store.port import EventReader, StoreError
from cqrs.subjects import heartbeat_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat

_log = get_logger(__name__)


class Heartbeat:
    """One relay's. It lies outside the stream, or it would consume sequences."""

    def __init__(
        self, reader: EventReader, threads: RelayThreads, broker: BrokerConnection, prefix: str, metrics: RelayMetrics
    ) -> None:
        self._reader = reader
        self._threads = threads
        self._broker = broker
        self._subject = heartbeat_subject(prefix)
        self._metrics = metrics
        self.epoch = ""
        """The log's, as it was seen last."""

    async def beat(self, published: int | None) -> None:
        """Tell that the stream ends at position `published`, None: it has not been seen. Failures are logged."""
        try:
            head = await self._threads.run(self._reader.read_head)
            self.epoch = head.epoch
            await self._measure_lag(head, published)
            if self._broker.connected:
                await self._broker.client.publish(self._subject, _message(head, published).SerializeToString())
        except (StoreError, nats.errors.Error, OSError) as error:
            self._metrics.failures.inc()
            _log.warning("heartbeat failed", error=repr(error))

    def rest(self) -> None:
        """Another process's relay tells it: this one has no lag."""
        self._metrics.lag_events.set(math.nan)
        self._metrics.lag_seconds.set(math.nan)

    async def _measure_lag(self, head: LogHead, published: int | None) -> None:
        if published is None:
            self.rest()
            return
        lag = max(0, head.position - published)
        age = 0.0
        if lag:
            oldest = await self._threads.run(lambda: self._reader.read_log(published + 1, 1))
            age = max(0.0, time.time() - oldest[0].record_time / 1e6) if oldest else 0.0
        self._metrics.lag_events.set(lag)
        self._metrics.lag_seconds.set(age)


def _message(head: LogHead, published: int | None) -> LogHeartbeat:
    return LogHeartbeat(
        epoch=head.epoch,
        position=head.position,
        hash=head.hash,
        record_time=to_timestamp(head.record_time) if head.position else None,
        published_position=published or 0,
    )
