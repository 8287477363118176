"""A projection's consumer of the stream: binding it at the checkpoint, and pulling ahead.

The checkpoint says where to go on, never the consumer's memory: a consumer whose acknowledgements stand elsewhere is
made anew. Acknowledgements are sent after the commit, for the last message of a batch (AckPolicy.ALL covers those
before); they tell operators how far a consumer is and keep the broker from redelivering, but nothing depends on them.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, NamedTuple, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

from cqrs.errors import HistoryDiverged, OrderstreamError
from cqrs.projection.chain import Delivery
from cqrs.projection.checkpoint import Checkpoint
from cqrs.relay.stream import METADATA_EPOCH
from cqrs.serving.stop import StopSignal
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH

_ACK_WAIT_SECONDS = 30.0
"""Redelivery of what is not acknowledged. Only a lost acknowledgement leads to it, and duplicates are dropped."""

_PULL_EXPIRES_SECONDS = 30
_HEARTBEAT_SECONDS = 1
_SILENCE_SECONDS = 3.5
"""With a pull outstanding, this long without message or heartbeat: the broker or the consumer is gone."""

_TICK_SECONDS = 0.5
_NANOS = 1_000_000_000


class StreamMissing(OrderstreamError):
    """The stream does not exist (yet, or any more). The relay makes it."""


class ConsumerLost(OrderstreamError):
    """The consumer or the connection to it is gone: bind again from the checkpoint."""


class StreamState(NamedTuple):
    """The stream as it was when the consumer was bound."""

    epoch: str
    last_position: int
    """0: it is empty."""


class StreamEnd(NamedTuple):
    """The last message of the stream."""

    epoch: str
    position: int
    hash: str
    """Hexadecimal, as its header says; empty if that is missing."""


async def read_end(js: JetStreamContext, stream: str, state: StreamState) -> StreamEnd:
    """The message that the stream ended with when the consumer was bound.

    Raises:
        StreamMissing: the stream does not have it any more: it is being made anew.
    """
    try:
        message = await js.get_msg(stream, state.last_position)
    except NotFoundError as error:
        raise StreamMissing(f"stream {stream} has changed while it was looked at") from error
    return StreamEnd(state.epoch, state.last_position, (message.headers or {}).get(HEADER_HASH, ""))


async def bind_consumer(js: JetStreamContext, stream: str, durable: str, checkpoint: Checkpoint) -> StreamState:
    """Check that the stream is of the checkpoint's history, and make the consumer's next message the checkpoint's next.

    Raises:
        StreamMissing: there is no such stream.
        HistoryDiverged: the stream is of another history. The message says what differs.
    """
    try:
        info = await js.stream_info(stream)
    except NotFoundError as error:
        raise StreamMissing(f"stream {stream} does not exist: waiting for the relay to create and fill it") from error
    state = StreamState((info.config.metadata or {}).get(METADATA_EPOCH, ""), info.state.last_seq)
    if not state.epoch:
        raise HistoryDiverged(f"stream {stream} does not say which epoch it is of: the relay did not create it")
    if checkpoint.epoch not in ("", state.epoch):
        raise HistoryDiverged(
            f"stream {stream} is of epoch {state.epoch}, the read model of epoch {checkpoint.epoch}: the log was "
            "restored or replaced"
        )
    if info.state.first_seq <= checkpoint.position <= info.state.last_seq and checkpoint.position:
        await _compare(js, stream, checkpoint)
    try:
        consumer = await js.consumer_info(stream, durable)
    except NotFoundError:
        consumer = None
    if consumer is not None and not _stands_at(consumer, checkpoint.position):
        await js.delete_consumer(stream, durable)
        consumer = None
    if consumer is None:
        await js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name=durable,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=checkpoint.position + 1,
                ack_policy=AckPolicy.ALL,
                ack_wait=_ACK_WAIT_SECONDS,
                max_ack_pending=20_000,
                max_waiting=64,
            ),
        )
    return state


async def _compare(js: JetStreamContext, stream: str, checkpoint: Checkpoint) -> None:
    """Compare the stream's message at the checkpoint's position with what was applied."""
    try:
        message = await js.get_msg(stream, checkpoint.position)
    except NotFoundError:
        return  # The stream lacks it; what comes next has to chain in any case.
    found = (message.headers or {}).get(HEADER_HASH, "")
    if found != checkpoint.hash.hex():
        raise HistoryDiverged(
            f"position {checkpoint.position} of stream {stream} has hash {found or '(none)'}, the read model applied "
            f"an event of hash {checkpoint.hash.hex()} there"
        )


def _stands_at(consumer: ConsumerInfo, position: int) -> bool:
    """Whether the consumer's next message is the checkpoint's next, with nothing out for redelivery."""
    delivered, acknowledged = consumer.delivered, consumer.ack_floor
    return (
        delivered is not None
        and acknowledged is not None
        and delivered.stream_seq == acknowledged.stream_seq == position
        and consumer.config.ack_policy == AckPolicy.ALL
    )


class Batch(NamedTuple):
    """What to do next."""

    deliveries: list[Delivery]
    """Contiguous, from the checkpoint's next position on."""
    repeated: Delivery | None
    """The event at the checkpoint's own position, if it came again."""
    missing_to: int
    """When `deliveries` is empty: the last position of the gap before the next message; 0: no gap."""
    ack: str
    """Where to acknowledge the batch to. Empty: nothing to acknowledge."""


class PullConsumer:
    """Pulls messages ahead, up to a number and a size, so that the next batch is here while one commits.

    Use it as an async context manager. It speaks the pull protocol itself (NATS ADR-13, ADR-37): `fetch()` of nats-py
    cannot tell an idle stream from a consumer or a broker that is gone.
    """

    def __init__(
        self, client: Client, stream: str, durable: str, stop: StopSignal, *, ahead_events: int, ahead_bytes: int
    ) -> None:
        """Describe it; entering the context starts it.

        Args:
            client: connection to the broker.
            stream: name of the stream.
            durable: name of the consumer.
            stop: makes `wait` return.
            ahead_events: pull again when at most this many messages are here or asked for: never more than twice this.
            ahead_bytes: the same in bytes.
        """
        self._client = client
        self._durable = durable
        self._stop = stop
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._ahead_events = ahead_events
        # A pull whose limit is smaller than the next message would never be answered.
        self._ahead_bytes = max(ahead_bytes, client.max_payload)
        self._request = json.dumps(
            {
                "batch": ahead_events,
                "max_bytes": self._ahead_bytes,
                "expires": _PULL_EXPIRES_SECONDS * _NANOS,
                "idle_heartbeat": _HEARTBEAT_SECONDS * _NANOS,
            }
        ).encode()
        self._messages: deque[tuple[int, Msg]] = deque()
        self._bytes = 0
        self._asked = 0
        self._wake = asyncio.Event()
        self._lost = ""
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._subscription: Subscription | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._stopping = asyncio.create_task(self._stop.wait(), name=f"stop-{self._durable}")
        self._stopping.add_done_callback(lambda _: self._wake.set())
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
        await self._pull()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()

    async def wait(self) -> bool:
        """Wait until there are messages; False after half a second without, or when the process should stop.

        Raises:
            ConsumerLost: it is gone, or the connection is.
        """
        if not self._messages and not self._lost and not self._stop.is_set():
            self._wake.clear()
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass  # Nothing came. Whether that is all right is looked at below.
        if not self._client.is_connected:
            raise ConsumerLost("the broker is away")
        if self._lost:
            raise ConsumerLost(f"consumer {self._durable}: {self._lost}")
        if not self._messages and self._loop.time() - self._heard > _SILENCE_SECONDS:
            raise ConsumerLost(f"consumer {self._durable}: nothing heard from the broker for {_SILENCE_SECONDS} s")
        return bool(self._messages)

    def take(self, position: int, max_events: int, max_bytes: int) -> Batch:
        """The next batch after the checkpoint's position, out of what has come.

        What is at or below the checkpoint is dropped: its effect is in the rows.
        """
        deliveries: list[Delivery] = []
        repeated: Delivery | None = None
        expected, size, missing_to, ack, acked = position + 1, 0, 0, "", 0
        while self._messages and len(deliveries) < max_events and size < max_bytes:
            sequence, message = self._messages[0]
            if sequence > expected:
                if not deliveries:
                    missing_to = sequence - 1
                break
            self._messages.popleft()
            self._bytes -= len(message.data)
            if sequence >= acked:
                acked, ack = sequence, message.reply
            if sequence == expected:
                deliveries.append(_delivery(sequence, message))
                size += len(message.data)
                expected += 1
            elif sequence == position:
                repeated = _delivery(sequence, message)
        return Batch(deliveries, repeated, missing_to, ack)

    async def pull_ahead(self) -> None:
        """Ask for more, if what is here and asked for has become little."""
        if (
            not self._lost
            and len(self._messages) + self._asked <= self._ahead_events
            and self._bytes <= self._ahead_bytes
        ):
            await self._pull()

    async def acknowledge(self, reply: str) -> None:
        """Acknowledge a batch whose commit is done. Not awaited by the broker: a lost one costs a duplicate."""
        if self._client.is_connected:
            await self._client.publish(reply, b"+ACK")

    async def _pull(self) -> None:
        self._asked += self._ahead_events
        self._heard = self._loop.time()
        await self._client.publish(self._subject, self._request, reply=self._inbox)

    async def _on_message(self, message: Msg) -> None:
        self._heard = self._loop.time()
        if message.reply:
            sequence = _sequence(message.reply)
            self._messages.append((sequence, message))
            self._bytes += len(message.data)
            self._asked = max(self._asked - 1, 0)
        elif not self._on_status(message.headers or {}):
            return
        self._wake.set()

    def _on_status(self, headers: dict[str, Any]) -> bool:
        """Take in what the broker says about a pull; returns whether somebody has to know at once."""
        status = str(headers.get("Status", ""))
        description = str(headers.get("Description", "")).strip()
        if status == "100":
            return False
        if status in ("404", "408") or description in ("Batch Completed", "Message Size Exceeds MaxBytes"):
            # The pull has ended; what it did not bring is no longer asked for.
            self._asked = max(self._asked - int(headers.get("Nats-Pending-Messages", self._ahead_events)), 0)
            return True
        self._lost = f"no responders ({status})" if status == "503" else f"{description or 'unknown status'} ({status})"
        return True


def _delivery(sequence: int, message: Msg) -> Delivery:
    return Delivery(sequence, (message.headers or {}).get(HEADER_EPOCH, ""), message.data)


def _sequence(reply: str) -> int:
    """Stream sequence of a message, from its JetStream reply subject.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`; the newer form
    has `<domain>.<account>` after ACK and one more token at the end (NATS ADR-15).
    """
    tokens = reply.split(".")
    return int(tokens[5] if len(tokens) == 9 else tokens[7])
