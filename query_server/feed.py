"""What the query server hears from the broker: the projector's notifications and the relay's heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import nats.errors
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from cqrs.broker.connection import BrokerConnection
from cqrs.records import to_micros
from cqrs.serving.logging import get_logger
from cqrs.subjects import changes_subject, heartbeat_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from orderstream.projections.v1.notification_pb2 import ProjectionChanged
from query_server.freshness import FreshnessTails, LogHead
from query_server.poller import CheckpointPoller
from query_server.tracker import ProjectionTracker

_FLUSH_SECONDS = 5
_RETRY_SECONDS = 1.0

_log = get_logger(__name__)


class ChangeFeed:
    """Subscribes, and keeps trackers and the log's head informed. Without a broker it waits for one."""

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        trackers: Mapping[str, ProjectionTracker],
        tails: Mapping[str, FreshnessTails],
        log: LogHead,
        poller: CheckpointPoller,
        on_connection: Callable[[str], None],
    ) -> None:
        """Describe the feed; nothing is opened.

        Args:
            url: of the broker.
            prefix: first token of the subjects.
            trackers: by projection.
            tails: the same projections' answers' ends, which show what heartbeats say.
            log: takes the heartbeats.
            poller: asked when a notification cannot be understood without the read DB.
            on_connection: called with why the broker cannot be heard; empty: it can.
        """
        self.connection = BrokerConnection(
            url, "query-server", on_connect=self._on_connect, on_disconnect=self._on_disconnect
        )
        self._prefix = prefix
        self._trackers = trackers
        self._tails = tails
        self._log_head = log
        self._poller = poller
        self._on_connection = on_connection
        self._connected = asyncio.Event()
        self._subscribed = False

    async def run(self) -> None:
        """Keep the subscriptions alive until cancelled. `connection.run()` must run beside it."""
        while True:
            await self._connected.wait()
            self._connected.clear()
            if not await self._listen():
                await asyncio.sleep(_RETRY_SECONDS)
                if self.connection.connected:
                    self._connected.set()

    async def _listen(self) -> bool:
        """Make sure that the broker has our subscriptions; from then on no notification passes unheard."""
        client = self.connection.client
        try:
            if not self._subscribed:  # a reconnect subscribes again by itself
                for projection in self._trackers:
                    await client.subscribe(changes_subject(self._prefix, projection), cb=self._on_change)
                await client.subscribe(heartbeat_subject(self._prefix), cb=self._on_heartbeat)
                self._subscribed = True
            await client.flush(timeout=_FLUSH_SECONDS)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            _log.warning("cannot subscribe yet", error=str(error) or type(error).__name__)
            return False
        if not self.connection.connected:
            return True  # lost meanwhile: the next connect comes here again
        for tracker in self._trackers.values():
            tracker.feed_began()
        self._log_head.connection(connected=True)
        self._on_connection("")
        self._poller.poke()
        return True

    async def _on_connect(self) -> None:
        self._connected.set()

    async def _on_disconnect(self) -> None:
        self._log_head.connection(connected=False)
        self._on_connection("is disconnected")
        for tracker in self._trackers.values():
            tracker.feed_ended()
        self._poller.poke()

    async def _on_change(self, message: Msg) -> None:
        try:
            change = ProjectionChanged.FromString(message.data)
        except DecodeError:
            # What it may have told shows as a gap before the next one, at the latest.
            _log.warning("not a notification", subject=message.subject, bytes=len(message.data))
            return
        tracker = self._trackers.get(change.projection)
        if tracker is None:
            return
        understood = tracker.notified(
            generation=change.generation,
            epoch=change.epoch,
            first=change.from_position,
            last=change.to_position,
            keys=change.keys,
            flush=change.flush,
            record_time=to_micros(change.to_record_time),
        )
        if not understood:
            self._poller.poke()

    async def _on_heartbeat(self, message: Msg) -> None:
        try:
            self._log_head.heartbeat(LogHeartbeat.FromString(message.data))
        except DecodeError:
            _log.warning("not a heartbeat", subject=message.subject, bytes=len(message.data))
            return
        for tails in self._tails.values():
            tails.heartbeat()
