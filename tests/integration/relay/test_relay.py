"""Invariants 1, 5 and 6, at the relay: against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig
from prometheus_client import CollectorRegistry

from cqrs.broker.connection import BrokerConnection, connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.errors import OperatorError
from cqrs.records import EventRecord, from_wire
from cqrs.relay.lease import RelayLease, SoleRelay
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.publish import BatchRejected, publish_batch
from cqrs.relay.relay import Relay, RelayState, RelayTimes
from cqrs.relay.stream import EMPTY_TAIL, StreamSettings, Tail, ensure_stream
from cqrs.serving.stop import StopSignal
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import EventReader
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION, heartbeat_subject
from orderstream.events.v1.event_pb2 import RecordedEvent
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from tests.integration.logs import append

STREAM = StreamSettings("ORDERSTREAM", "orderstream", 1)
FAST = RelayTimes(poll=0.05, check=0.2, heartbeat=0.1, gather=0.001, acknowledge=2.0)


class Running:
    """A relay at work."""

    def __init__(self, relay: Relay, halts: list[str | None], registry: CollectorRegistry) -> None:
        self.relay, self.halts, self._registry = relay, halts, registry

    def metric(self, name: str) -> float:
        value = self._registry.get_sample_value(name)
        assert value is not None
        return value


def nobody(_position: int) -> None:
    """Wants no news."""


@asynccontextmanager
async def running(
    store: EventReader,
    url: str,
    max_event_bytes: int = 100_000,
    *,
    lease: RelayLease | None = None,
    on_elsewhere: Callable[[int], None] = nobody,
    times: RelayTimes = FAST,
) -> AsyncIterator[Running]:
    stop, halts, registry = StopSignal(), list[str | None](), CollectorRegistry()

    def on_state(_state: RelayState, error: Exception | None) -> None:
        halts.append(str(error) if isinstance(error, OperatorError) else None)

    broker = BrokerConnection(url, "relay")
    relay = Relay(
        store,
        broker,
        STREAM,
        RelayMetrics(registry),
        max_event_bytes=max_event_bytes,
        on_state=on_state,
        lease=lease or SoleRelay(),
        on_elsewhere=on_elsewhere,
        times=times,
    )
    connecting = asyncio.create_task(broker.run(stop))
    tasks = [asyncio.create_task(relay.run()), asyncio.create_task(relay.run_heartbeat())]
    try:
        yield Running(relay, halts, registry)
    finally:
        relay.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
        stop.set("the test is over")
        await broker.close()
        await asyncio.wait_for(connecting, 20)
        relay.release()


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


async def stream_of(client: Client) -> list[EventRecord]:
    """The stream's messages as events, with what their headers and sequences say checked against them."""
    jetstream = client.jetstream()
    last = (await jetstream.stream_info(STREAM.name)).state.last_seq
    epoch = ((await jetstream.stream_info(STREAM.name)).config.metadata or {})["orderstream.epoch"]
    events = []
    for sequence in range(1, last + 1):
        message = await jetstream.get_msg(STREAM.name, seq=sequence)
        assert message.data is not None
        event = from_wire(RecordedEvent.FromString(message.data))
        assert event.position == sequence
        assert message.headers is not None
        assert message.headers[HEADER_POSITION] == str(sequence)
        assert message.headers[HEADER_HASH] == event.hash.hex()
        assert message.headers[HEADER_EPOCH] == epoch
        events.append(event)
    return events


def test_the_stream_is_the_log_position_for_sequence_and_byte_for_byte(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [(f"a-{n}", 1) for n in range(5)])
        async with EmbeddedBroker(tmp_path) as broker, running(store, broker.url) as running_relay:
            for version in range(2, 6):
                running_relay.relay.committed(
                    append(store, [(f"a-{n}", version) for n in range(5)], data=bytes(range(256)))
                )
                await asyncio.sleep(0.02)
            await eventually(lambda: running_relay.metric("orderstream_relay_position") == 25, "all published")
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == store.read_log(1, 100)
            await client.close()

    asyncio.run(scenario())


def test_more_events_than_one_atomic_batch_may_have_are_published_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [(f"a-{n}", 1) for n in range(2500)])
        async with EmbeddedBroker(tmp_path) as broker, running(store, broker.url) as running_relay:
            await eventually(lambda: running_relay.metric("orderstream_relay_position") == 2500, "all published")
            assert running_relay.metric("orderstream_relay_batches_total") == 3

    asyncio.run(scenario())


def test_without_a_broker_the_relay_waits_and_then_catches_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        broker = EmbeddedBroker(tmp_path)
        await broker.start()
        async with running(store, broker.url) as running_relay:
            append(store, [("a", 1)])
            await eventually(lambda: running_relay.metric("orderstream_relay_position") == 1, "first published")
            port = broker.port
            await broker.stop()
            append(store, [("a", 2), ("a", 3)])
            await eventually(lambda: running_relay.metric("orderstream_relay_lag_events") == 2, "lag is told")
            await eventually(
                lambda: running_relay.metric("orderstream_relay_lag_seconds") > 0, "lag is told in seconds"
            )
            async with EmbeddedBroker(tmp_path, port=port) as again:
                await eventually(lambda: running_relay.metric("orderstream_relay_position") == 3, "caught up")
                client = await connect_broker(again.url, "reader")
                assert await stream_of(client) == store.read_log(1, 100)
                await client.close()

    asyncio.run(scenario())


def test_a_deleted_stream_is_filled_again_from_the_log_even_when_nothing_is_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", version) for version in range(1, 8)])
        async with EmbeddedBroker(tmp_path) as broker, running(store, broker.url) as running_relay:
            await eventually(lambda: running_relay.metric("orderstream_relay_position") == 7, "published")
            client = await connect_broker(broker.url, "operator")
            await client.jetstream().delete_stream(STREAM.name)
            await eventually(lambda: running_relay.metric("orderstream_relay_events_total") == 14, "filled again")
            assert await stream_of(client) == store.read_log(1, 100)
            await client.close()

    asyncio.run(scenario())


def test_of_two_relays_one_wins_each_position_and_nothing_is_doubled(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        async with EmbeddedBroker(tmp_path) as broker:
            async with running(store, broker.url) as one, running(store, broker.url) as two:
                for version in range(1, 60):
                    events = append(store, [(f"a-{n}", version) for n in range(5)])
                    (one if version % 2 else two).relay.committed(events)
                    await asyncio.sleep(0.005)
                await eventually(lambda: one.metric("orderstream_relay_position") == 295, "all published")
                await eventually(lambda: two.metric("orderstream_relay_position") == 295, "the other knows")
                published = sum(each.metric("orderstream_relay_events_total") for each in (one, two))
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == store.read_log(1, 1000)
            assert published == 295
            await client.close()

    asyncio.run(scenario())


def test_a_relay_that_was_paused_with_an_old_tail_is_fenced_by_the_broker(tmp_path: Path) -> None:
    """The interleaving: it read the tail, another one published, and only now it publishes."""

    async def scenario() -> None:
        store = MemoryEventStore()
        events = append(store, [("a", version) for version in range(1, 5)])
        epoch = store.read_head().epoch
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "relay")
            await ensure_stream(client, STREAM, epoch)
            tail = await publish_batch(client, STREAM, epoch, EMPTY_TAIL, events[:2], 5)
            assert tail == Tail(2, events[1].hash)
            with pytest.raises(BatchRejected):
                await publish_batch(client, STREAM, epoch, EMPTY_TAIL, events[:3], 5)
            await publish_batch(client, STREAM, epoch, tail, events[2:], 5)
            assert await stream_of(client) == events
            await client.close()

    asyncio.run(scenario())


def test_a_stream_that_is_ahead_of_the_log_halts_the_relay_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        long, restored = MemoryEventStore(), MemoryEventStore()
        append(long, [("a", 1), ("a", 2), ("a", 3)])
        restored._head = restored._head._replace(epoch=long.read_head().epoch)
        with restored.begin_append() as transaction:
            older = long.read_log(1, 2)
            transaction.append(older, [], long.read_head()._replace(position=2, hash=older[-1].hash))
            transaction.commit()
        async with EmbeddedBroker(tmp_path) as broker:
            async with running(long, broker.url) as first:
                await eventually(lambda: first.metric("orderstream_relay_position") == 3, "published")
            async with running(restored, broker.url) as second:
                await eventually(lambda: second.relay.state is RelayState.HALTED, "halted")
                assert second.halts[-1] is not None
                assert "ends at position 3, the log at 2" in second.halts[-1]
                assert second.metric("orderstream_relay_halted") == 1
                append(restored, [("b", 1)])  # level with the stream, and another event
                await asyncio.sleep(0.3)
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == long.read_log(1, 10)
            async with running(restored, broker.url) as third:
                await eventually(lambda: third.relay.state is RelayState.HALTED, "halted")
                assert "two histories" in (third.halts[-1] or "")
            await client.close()

    asyncio.run(scenario())


def test_a_stream_of_another_log_halts_the_relay(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, other = MemoryEventStore(), MemoryEventStore()
        append(one, [("a", 1)])
        append(other, [("a", 1)])
        async with EmbeddedBroker(tmp_path) as broker:
            async with running(one, broker.url) as first:
                await eventually(lambda: first.metric("orderstream_relay_position") == 1, "published")
            async with running(other, broker.url) as second:
                await eventually(lambda: second.relay.state is RelayState.HALTED, "halted")
                assert one.read_head().epoch in (second.halts[-1] or "")

    asyncio.run(scenario())


def test_a_log_that_was_changed_in_the_middle_is_not_published_from_there_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", version) for version in range(1, 6)])
        store._events[2] = store._events[2]._replace(data=b"forged")
        async with EmbeddedBroker(tmp_path) as broker, running(store, broker.url) as running_relay:
            await eventually(lambda: running_relay.relay.state is RelayState.HALTED, "halted")
            assert "position 3 of the log does not chain" in (running_relay.halts[-1] or "")
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == []
            await client.close()

    asyncio.run(scenario())


def test_a_stray_message_halts_the_relay_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", 1)])
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "stranger")
            epoch = store.read_head().epoch
            await ensure_stream(client, STREAM, epoch)
            headers = {HEADER_EPOCH: epoch, HEADER_POSITION: "1", HEADER_HASH: "zz"}
            await client.jetstream().publish("orderstream.log.thing.1.Stray", b"", headers=headers)
            async with running(store, broker.url) as running_relay:
                await eventually(lambda: running_relay.relay.state is RelayState.HALTED, "halted")
                assert "was not made by a relay" in (running_relay.halts[-1] or "")
            await client.close()

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_the_next_look_at_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker_connection_stop = StopSignal()
        async with EmbeddedBroker(tmp_path) as broker:
            connection = BrokerConnection(broker.url, "relay")
            connecting = asyncio.create_task(connection.run(broker_connection_stop))
            relay = Relay(
                MemoryEventStore(),
                connection,
                STREAM,
                RelayMetrics(CollectorRegistry()),
                max_event_bytes=1000,
                on_state=lambda _state, _error: None,
                times=FAST._replace(poll=60),
            )
            relaying = asyncio.create_task(relay.run())
            await eventually(lambda: relay.state is RelayState.PUBLISHING, "publishing")
            relay.stop()
            await asyncio.wait_for(relaying, 5)
            relay.release()
            await connection.close()
            await connecting

    asyncio.run(scenario())


def test_a_stream_that_could_lose_messages_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", 1)])
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "operator")
            await client.jetstream().add_stream(
                StreamConfig(name=STREAM.name, subjects=["orderstream.log.>"], max_age=60, allow_atomic=True)
            )
            async with running(store, broker.url) as running_relay:
                await eventually(lambda: running_relay.relay.state is RelayState.HALTED, "halted")
                assert "max_age is 60" in (running_relay.halts[-1] or "")
                await client.jetstream().delete_stream(STREAM.name)
                await eventually(lambda: running_relay.metric("orderstream_relay_position") == 1, "goes on by itself")
                assert running_relay.halts[-1] is None
            await client.close()

    asyncio.run(scenario())


def test_a_broker_that_could_not_carry_the_largest_event_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path, max_payload_bytes=50_000) as broker,
            running(MemoryEventStore(), broker.url, max_event_bytes=100_000) as running_relay,
        ):
            await eventually(lambda: running_relay.relay.state is RelayState.HALTED, "halted")
            assert "max_payload" in (running_relay.halts[-1] or "")

    asyncio.run(scenario())


def test_the_heartbeat_tells_head_and_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", 1), ("a", 2)])
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "listener")
            beats: list[LogHeartbeat] = []

            async def listen(message: Msg) -> None:
                beats.append(LogHeartbeat.FromString(message.data))

            await client.subscribe(heartbeat_subject("orderstream"), cb=listen)
            async with running(store, broker.url):
                await eventually(
                    lambda: bool(beats) and beats[-1].published_position == 2, "a heartbeat after publishing"
                )
            head = store.read_head()
            assert (beats[-1].epoch, beats[-1].position, beats[-1].hash) == (head.epoch, 2, head.hash)
            await client.close()

    asyncio.run(scenario())


def test_a_log_that_begins_a_new_epoch_is_not_published_on_under_the_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        append(store, [("a", 1)])
        async with EmbeddedBroker(tmp_path) as broker, running(store, broker.url) as running_relay:
            await eventually(lambda: running_relay.metric("orderstream_relay_position") == 1, "published")
            store._head = store._head._replace(epoch="22222222-2222-4222-8222-222222222222")
            await eventually(lambda: running_relay.relay.state is RelayState.HALTED, "halted")
            assert "22222222-2222-4222-8222-222222222222" in (running_relay.halts[-1] or "")

    asyncio.run(scenario())
