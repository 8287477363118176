"""GetAggregateState: at every point, what a fold of all events up to that point says; with snapshots and without."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from command_server.aggregates import AGGREGATE_TYPES
from cqrs.commit.aggregates import UnknownEvent
from cqrs.errors import AggregateNotFound, InvalidRequest, NotReached
from cqrs.records import EventRecord, to_timestamp
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.rules import rules_for
from cqrs.snapshots.snapshot import seal
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated
from orderstream.events.v1.event_service_pb2 import GetAggregateStateRequest, GetAggregateStateResponse
from tests.integration.events.serving import Served, serving, watched_log
from tests.integration.events.writing import START, Draft, LogWriter
from tests.orders_history import random_history

TYPES = {type_.name: type_ for type_ in AGGREGATE_TYPES}


def brute_force(events: Iterable[EventRecord]) -> Message | None:
    state: Message | None = None
    for event in events:
        type_ = TYPES[event.aggregate_type]
        state = state if state is not None else type_.state()
        type_.evolve(state, type_.events[event.event_type].FromString(event.data))
    return state


def write_history(log: LogWriter, seed: int, count: int) -> None:
    """Orders and customers, many of them recorded at the same microsecond."""
    rng, moment = random.Random(seed), START
    for event in random_history(count, seed).events:
        moment += rng.choice([0, 0, 0, 1, 3])
        log.write(
            Draft(event.aggregate_id, event.aggregate_type, event.event_type, record_time=moment, data=event.data)
        )


def take_snapshots(log: LogWriter, seed: int) -> None:
    rng, rules = random.Random(seed), rules_for(AGGREGATE_TYPES, dict.fromkeys(TYPES, 1))
    for event in rng.sample(log.events, len(log.events) // 3):
        fold = Fold(TYPES, event.aggregate_id)
        fold.apply(
            other for other in log.events if other.aggregate_id == event.aggregate_id and other.version <= event.version
        )
        capture = fold.capture()
        assert capture is not None
        log.store.write_snapshots([seal(capture, rules[event.aggregate_type].fingerprint)], keep=1_000)


async def state(served: Served, **request: Any) -> GetAggregateStateResponse:
    context: Any = None
    return await served.service.GetAggregateState(GetAggregateStateRequest(**request), context)


def assert_is(answer: GetAggregateStateResponse, events: list[EventRecord]) -> None:
    last = events[-1]
    expected = brute_force(events)
    assert expected is not None
    found = type(expected)()
    assert answer.state.Unpack(found)
    assert found == expected
    assert (answer.aggregate_id, answer.aggregate_type) == (last.aggregate_id, last.aggregate_type)
    assert (answer.version, answer.position) == (last.version, last.position)
    assert answer.record_time == to_timestamp(last.record_time)


@pytest.mark.parametrize("snapshots", [False, True], ids=["without snapshots", "with snapshots"])
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 0), ("sqlite", 1), ("sqlite", 2), ("postgresql", 3)])
def test_the_state_at_any_version_position_or_time_is_that_of_a_full_fold(
    tmp_path: Path, request: pytest.FixtureRequest, database: str, seed: int, snapshots: bool
) -> None:
    where = tmp_path if database == "sqlite" else request.getfixturevalue("postgresql_write_db")

    async def scenario(served: Served, log: LogWriter) -> None:
        rng = random.Random(seed)
        for _ in range(150):
            chosen = rng.choice(log.events)
            own = [event for event in log.events if event.aggregate_id == chosen.aggregate_id]
            version = rng.randint(1, len(own))
            assert_is(await state(served, aggregate_id=chosen.aggregate_id, version=version), own[:version])
            around = rng.choice(log.events)
            moment = around.record_time + rng.choice([0, 0, -1])
            points: list[tuple[dict[str, Any], list[EventRecord]]] = [
                ({"position": around.position}, [event for event in own if event.position <= around.position]),
                ({"time": to_timestamp(moment)}, [event for event in own if event.record_time <= moment]),
            ]
            for at, expected in points:
                if expected:
                    assert_is(await state(served, aggregate_id=chosen.aggregate_id, **at), expected)
                else:
                    with pytest.raises(AggregateNotFound):
                        await state(served, aggregate_id=chosen.aggregate_id, **at)
            assert_is(await state(served, aggregate_id=chosen.aggregate_id), own)

    async def run() -> None:
        async with serving(store, snapshots=snapshots) as served:
            await scenario(served, log)

    with watched_log(where) as (store, log):
        write_history(log, seed, 250)
        take_snapshots(log, seed)
        asyncio.run(run())


def test_a_long_life_is_folded_in_steps_between_which_others_have_the_threads(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(store) as served:
            folding = [asyncio.create_task(state(served, aggregate_id="c")) for _ in range(8)]
            short = await state(served, aggregate_id="d")
            assert not any(each.done() for each in folding)
            assert short.version == 1
            for each in folding:
                customer = Customer()
                answer = await each
                assert answer.state.Unpack(customer)
                assert (answer.version, customer.name) == (10_001, "Name 9999")

    with watched_log(tmp_path) as (store, log):
        names = (CustomerUpdated(customer_id="c", name=f"Name {number}") for number in range(10_000))
        messages: list[Message] = [CustomerRegistered(customer_id="c", name="Ada"), *names]
        log.write(
            *(
                Draft("c", "customer", message.DESCRIPTOR.full_name, data=message.SerializeToString())
                for message in messages
            )
        )
        registered = CustomerRegistered(customer_id="d", name="Bob")
        log.write(Draft("d", "customer", registered.DESCRIPTOR.full_name, data=registered.SerializeToString()))
        asyncio.run(run())


def test_what_is_not_there_not_yet_there_or_malformed_is_told_apart(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(store) as served:
            with pytest.raises(AggregateNotFound):
                await state(served, aggregate_id="nobody")
            with pytest.raises(AggregateNotFound):
                await state(served, aggregate_id="nobody", version=1)
            with pytest.raises(NotReached) as not_reached:
                await state(served, aggregate_id="c", version=2)
            assert not_reached.value.metadata == {"requested": "2", "current": "1"}
            with pytest.raises(NotReached):
                await state(served, aggregate_id="c", position=3)
            future = to_timestamp(time.time_ns() // 1000 + 60_000_000)
            for malformed in ({"version": 0}, {"position": -1}, {"time": future}):
                given: dict[str, Any] = malformed
                with pytest.raises(InvalidRequest):
                    await state(served, aggregate_id="c", **given)
            with pytest.raises(InvalidRequest):
                await state(served, aggregate_id="")
            with pytest.raises(UnknownEvent):
                await state(served, aggregate_id="stranger")

    with watched_log(tmp_path) as (store, log):
        registered = CustomerRegistered(customer_id="c", name="Ada")
        log.write(Draft("c", "customer", registered.DESCRIPTOR.full_name, data=registered.SerializeToString()))
        log.write(Draft("stranger", "unheard-of"))
        asyncio.run(run())


def test_the_time_of_the_last_event_is_no_future_even_if_this_hosts_clock_is_behind_it(tmp_path: Path) -> None:
    ahead = time.time_ns() // 1000 + 3_600_000_000

    async def run() -> None:
        async with serving(store) as served:
            answer = await state(served, aggregate_id="c", time=to_timestamp(ahead))
            assert answer.version == 1
            with pytest.raises(InvalidRequest):
                await state(served, aggregate_id="c", time=to_timestamp(ahead + 1))

    with watched_log(tmp_path) as (store, log):
        registered = CustomerRegistered(customer_id="c", name="Ada")
        name = registered.DESCRIPTOR.full_name
        log.write(Draft("c", "customer", name, record_time=ahead, data=registered.SerializeToString()))
        asyncio.run(run())
