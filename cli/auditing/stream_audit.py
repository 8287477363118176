"""Audits the stream against the log: message n is the event at position n, to the byte. Invariants 5 and 6."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from cli.auditing.checks import Check, FirstProblem
from cqrs.records import EventRecord, to_wire
from cqrs.relay.stream import METADATA_EPOCH
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION, log_filter, log_subject

_RULE = "equals the log, to the byte"
_FETCH_SECONDS = 10.0
_FETCH_MESSAGES = 500
_POLL_SECONDS = 0.2
_FORGET_SECONDS = 60.0
"""The broker forgets our consumer when it has not been used for so long."""


class StreamAudit:
    """Reads the stream beside the log. Leaves nothing behind on the broker.

    Args:
        client: a connection to the broker.
        stream: the stream's name.
        prefix: first token of its subjects.
        epoch: the log's.
    """

    def __init__(self, client: Client, stream: str, prefix: str, epoch: str) -> None:
        self._jetstream: JetStreamContext = client.jetstream()
        self._stream = stream
        self._prefix = prefix
        self._epoch = epoch
        self._problem = FirstProblem()
        self._unchecked = ""
        self._compared = 0
        self._last = 0
        """The stream's last sequence, as far as it is to be compared."""
        self._messages: JetStreamContext.PullSubscription | None = None

    async def open(self, position: int, wait_seconds: float) -> None:
        """Wait until the stream holds the log up to `position`, at most `wait_seconds`; then get ready to read it."""
        info = await self._info()
        give_up = time.monotonic() + wait_seconds
        while (info is None or info.state.last_seq < position) and time.monotonic() < give_up:
            await asyncio.sleep(_POLL_SECONDS)
            info = await self._info()
        if info is None:
            self._problem.found(f"there is no stream {self._stream}")
            return
        epoch = (info.config.metadata or {}).get(METADATA_EPOCH)
        if epoch != self._epoch:
            self._problem.found(f"it is of epoch {epoch}, the log of epoch {self._epoch}")
        if info.state.messages and info.state.first_seq != 1:
            self._problem.found(f"its first message is {info.state.first_seq}, not 1")
        self._last = info.state.last_seq
        if not self._last:
            return
        self._messages = await self._jetstream.pull_subscribe(
            log_filter(self._prefix),
            stream=self._stream,
            config=ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.ALL,
                mem_storage=True,
                inactive_threshold=_FORGET_SECONDS,
            ),
        )

    def failed(self, error: Exception) -> None:
        """The broker did not answer, or not to the end: that says nothing about the stream."""
        self._unchecked = self._unchecked or f"the broker failed: {str(error) or type(error).__name__}"

    async def compare(self, records: Sequence[EventRecord]) -> None:
        """Compare the next events of the log with the next messages of the stream, until there is a problem."""
        if self._messages is None or self._problem.text or self._unchecked:
            return
        expected = [record for record in records if record.position <= self._last]
        while expected:
            try:
                messages = await self._messages.fetch(min(len(expected), _FETCH_MESSAGES), timeout=_FETCH_SECONDS)
            except nats.errors.TimeoutError:
                self._unchecked = f"position {expected[0].position} could not be read within {_FETCH_SECONDS:g} s"
                return
            for record, message in zip(expected, messages, strict=False):
                self._compare(record, message)
            expected = expected[len(messages) :]

    async def close(self) -> None:
        """Take the consumer off the broker."""
        if self._messages is not None:
            consumer = await self._messages.consumer_info()
            await self._messages.unsubscribe()
            await self._jetstream.delete_consumer(self._stream, consumer.name)

    def check(self, log_position: int, log_position_now: int, *, running: bool) -> Check:
        """What was found, for a log that ended at `log_position` when the audit began, and ends at `log_position_now`.

        When nothing runs, its end may be missing.
        """
        note = f"sequence {self._last:,}"
        if self._unchecked:
            return Check("stream", _RULE, self._compared, self._problem.text, unchecked=self._unchecked)
        if self._last > log_position_now:
            self._problem.found(f"it is ahead of the log: it ends at {self._last}, the log at {log_position_now}")
        if self._last < log_position:
            missing = f"{log_position - self._last:,} events of the log are not on it"
            if running:
                self._problem.found(f"{missing} yet")
            else:
                note += f"; {missing}: the relay goes on when the system runs"
        return Check("stream", _RULE, self._compared, self._problem.text, note, self._problem.position)

    async def _info(self) -> StreamInfo | None:
        try:
            return await self._jetstream.stream_info(self._stream)
        except NotFoundError:
            return None

    def _compare(self, record: EventRecord, message: Msg) -> None:
        self._compared += 1
        headers: dict[str, Any] = message.headers or {}
        found = {
            "sequence": message.metadata.sequence.stream,
            "subject": message.subject,
            HEADER_EPOCH: headers.get(HEADER_EPOCH),
            HEADER_POSITION: headers.get(HEADER_POSITION),
            HEADER_HASH: headers.get(HEADER_HASH),
        }
        expected = {
            "sequence": record.position,
            "subject": log_subject(self._prefix, record.aggregate_type, record.aggregate_id, record.event_type),
            HEADER_EPOCH: self._epoch,
            HEADER_POSITION: str(record.position),
            HEADER_HASH: record.hash.hex(),
        }
        for name, value in expected.items():
            if found[name] != value:
                self._problem.found(
                    f"position {record.position}: {name} is {found[name]!r} instead of {value!r}", record.position
                )
        if message.data != to_wire(record).SerializeToString():
            self._problem.found(f"position {record.position}: the payload is not the event of the log", record.position)
