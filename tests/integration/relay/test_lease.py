"""Of many command servers on one log, one publishes: on a real PostgreSQL, against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.relay import lease as lease_module
from cqrs.relay.lease import LeasedRelay
from cqrs.relay.relay import RelayState
from cqrs.relay.stream import ensure_stream
from cqrs.store.leases import SqlLeases
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import append
from tests.integration.relay.test_relay import FAST, STREAM, Running, eventually, running, stream_of

SHARED = FAST._replace(renew=0.1)
SELDOM = SHARED._replace(poll=60)
"""Looks at the log only when it is told to, within the time of a test."""

Leases = Callable[[str], LeasedRelay]


@pytest.fixture
def store(postgresql_write_db: str) -> Iterator[SqlEventStore]:
    opened = SqlEventStore(postgresql_write_db)
    yield opened
    opened.close()


@pytest.fixture
def leases(postgresql_write_db: str) -> Iterator[Leases]:
    """The lease as a process of some name holds it."""
    opened: list[SqlLeases] = []

    def of(holder: str) -> LeasedRelay:
        opened.append(SqlLeases(postgresql_write_db, holder))
        return LeasedRelay(opened[-1])

    yield of
    for each in opened:
        each.close()


def published(relay: Running) -> float:
    return relay.metric("orderstream_relay_events_total")


async def becomes(relay: Running, state: RelayState) -> None:
    await eventually(lambda: relay.relay.state is state, state)


def test_one_of_several_publishes_and_a_stop_hands_that_over_at_once(
    tmp_path: Path, store: SqlEventStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 3600)

    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            async with running(store, broker.url, lease=leases("b"), times=SHARED) as other:
                await becomes(other, RelayState.PUBLISHING)
                async with running(store, broker.url, lease=leases("a"), times=SHARED) as one:
                    await becomes(one, RelayState.STANDBY)
                    for version in range(1, 20):
                        events = append(store, [("a", version)])
                        (one if version % 2 else other).relay.committed(events)
                    await eventually(lambda: published(other) == 19, "all published by who holds the lease")
                    assert published(one) == 0
                    assert one.metric("orderstream_relay_failures_total") == 0
                    other.relay.stop()
                    await becomes(one, RelayState.PUBLISHING)
                    one.relay.committed(append(store, [("a", 20)]))
                    await eventually(lambda: published(one) == 1, "published by who took over")
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == store.read_log(1, 100)
            await client.close()

    asyncio.run(scenario())


def test_the_lease_of_a_process_that_has_died_is_taken_over_when_it_has_run_out(
    tmp_path: Path, store: SqlEventStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1)
    append(store, [("a", 1)])
    assert leases("dead").hold()

    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path) as broker,
            running(store, broker.url, lease=leases("alive"), times=SHARED) as alive,
        ):
            await becomes(alive, RelayState.STANDBY)
            await becomes(alive, RelayState.PUBLISHING)
            await eventually(lambda: published(alive) == 1, "published")

    asyncio.run(scenario())
    assert leases("dead").hold(), "and who stops gives it back"


def test_a_lease_is_kept_however_seldom_the_log_is_looked_at(
    tmp_path: Path, store: SqlEventStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1)

    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path) as broker,
            running(store, broker.url, lease=leases("holder"), times=SELDOM) as holder,
        ):
            await becomes(holder, RelayState.PUBLISHING)
            for _ in range(15):
                assert not await asyncio.to_thread(leases("other").hold)
                await asyncio.sleep(0.2)
            assert holder.relay.state is RelayState.PUBLISHING

    asyncio.run(scenario())


def test_what_another_server_commits_is_on_the_stream_without_waiting_for_a_look_at_the_log(
    tmp_path: Path, store: SqlEventStore, leases: Leases
) -> None:
    async def scenario() -> None:
        heard: list[int] = []
        async with (
            EmbeddedBroker(tmp_path) as broker,
            running(store, broker.url, lease=leases("a"), times=SELDOM) as publisher,
        ):
            await becomes(publisher, RelayState.PUBLISHING)
            async with running(store, broker.url, lease=leases("b"), times=SELDOM, on_elsewhere=heard.append) as other:
                await becomes(other, RelayState.STANDBY)
                for version in range(1, 6):
                    other.relay.committed(append(store, [("a", version)]))
                    await eventually(lambda v=version: published(publisher) == v, "published")  # type: ignore[misc]
                assert heard == [], "it knows what it has committed itself"
                publisher.relay.committed(append(store, [("a", 6)]))
                await eventually(lambda: heard == [6], "the server that stands by hears of the other's commits")
                # What is committed last before a stop is told, too.
                other.relay.committed(append(store, [("a", 7)]))
                other.relay.stop()
            await eventually(lambda: published(publisher) == 7, "published")

    asyncio.run(scenario())


def test_a_server_that_stands_by_halts_on_a_stream_of_another_history(
    tmp_path: Path, store: SqlEventStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 3600)
    assert leases("another").hold()

    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path) as broker,
            running(store, broker.url, lease=leases("standby"), times=SHARED) as standby,
        ):
            await becomes(standby, RelayState.STANDBY)
            client = await connect_broker(broker.url, "operator")
            await client.jetstream().delete_stream(STREAM.name)
            await ensure_stream(client, STREAM, "11111111-1111-4111-8111-111111111111")
            await client.close()
            await becomes(standby, RelayState.HALTED)
            assert "two histories" in (standby.halts[-1] or "")

    asyncio.run(scenario())


def test_a_relay_that_cannot_publish_lets_another_try(tmp_path: Path, store: SqlEventStore, leases: Leases) -> None:
    append(store, [("a", 1)])

    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path, max_payload_bytes=200_000) as broker,
            running(store, broker.url, 300_000, lease=leases("too much"), times=SHARED) as one,
        ):
            await becomes(one, RelayState.HALTED)
            async with running(store, broker.url, lease=leases("modest"), times=SHARED) as other:
                await eventually(lambda: published(other) == 1, "published")

    asyncio.run(scenario())


def test_two_that_both_believe_to_hold_the_lease_leave_the_stream_equal_to_the_log(
    tmp_path: Path, store: SqlEventStore
) -> None:
    """As after a pause: the broker's fence decides, not the lease."""

    class Mistaken(LeasedRelay):
        def __init__(self) -> None:
            pass

        def hold(self) -> bool:
            return True

        def release(self) -> None:
            pass

    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            async with (
                running(store, broker.url, lease=Mistaken(), times=SHARED) as one,
                running(store, broker.url, lease=Mistaken(), times=SHARED) as two,
            ):
                for version in range(1, 100):
                    events = await asyncio.to_thread(append, store, [(f"a-{n}", version) for n in range(5)])
                    (one if version % 3 else two).relay.committed(events)
                for each in (one, two):
                    await eventually(lambda e=each: e.metric("orderstream_relay_position") == 495, "all published")  # type: ignore[misc]
                assert published(one) + published(two) == 495
            client = await connect_broker(broker.url, "reader")
            assert await stream_of(client) == store.read_log(1, 1000)
            await client.close()

    asyncio.run(scenario())
