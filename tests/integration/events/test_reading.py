"""ReadAggregate, ReadLog and DescribeLog: whatever is asked for, what a walk along all events would pick."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cqrs.errors import HistoryChanged, InvalidRequest, StoreUnavailable
from cqrs.records import EventRecord, from_wire, to_timestamp
from cqrs.store.epochs import begin_epoch
from cqrs.store.port import StoreError
from orderstream.events.v1.event_service_pb2 import (
    READ_DIRECTION_BACKWARDS,
    READ_DIRECTION_FORWARDS,
    DescribeLogRequest,
    EventFilter,
    ReadAggregateRequest,
    ReadLogRequest,
)
from tests.integration.events.serving import Served, WatchedStore, serving, watched_log
from tests.integration.events.writing import START, Draft, LogWriter

CONTEXT: Any = None


def scenario(folder: Path, play: Callable[[Served, WatchedStore, LogWriter], Coroutine[Any, Any, None]]) -> None:
    async def run(store: WatchedStore, log: LogWriter) -> None:
        async with serving(store) as served:
            await play(served, store, log)

    with watched_log(folder) as (store, log):
        asyncio.run(run(store, log))


async def events_of(chunks: AsyncIterator[Any]) -> list[EventRecord]:
    found: list[EventRecord] = []
    async for chunk in chunks:
        assert chunk.events
        found += map(from_wire, chunk.events)
    return found


def write_mixed(log: LogWriter, count: int) -> None:
    rng, time = random.Random(7), START
    drafts = []
    for _ in range(count):
        time += rng.choice([0, 0, 1, 2])
        kind = rng.choice(["order", "customer"])
        drafts.append(Draft(f"{kind}-{rng.randrange(3)}", kind, f"example.v1.{rng.choice('AB')}", time))
    log.write(*drafts)


def test_an_aggregate_is_read_in_either_direction_from_any_version_or_time(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        write_mixed(log, 1_500)
        own = [event for event in log.events if event.aggregate_id == "order-1"]

        async def read(**request: Any) -> list[EventRecord]:
            return await events_of(
                served.service.ReadAggregate(ReadAggregateRequest(aggregate_id="order-1", **request), CONTEXT)
            )

        backwards = {"direction": READ_DIRECTION_BACKWARDS}
        assert await read() == await read(direction=READ_DIRECTION_FORWARDS) == own
        assert await read(**backwards) == own[::-1]
        rng = random.Random(1)
        for _ in range(40):
            count = rng.choice([0, 1, 5, 10_000])
            version = rng.randint(1, len(own) + 2)
            at = rng.choice(own).record_time + rng.choice([-1, 0, 1])
            time = to_timestamp(at)
            cases: list[tuple[dict[str, Any], list[EventRecord]]] = [
                ({"from_version": version}, [event for event in own if event.version >= version]),
                ({"from_version": version, **backwards}, [event for event in own[::-1] if event.version <= version]),
                ({"from_time": time}, [event for event in own if event.record_time >= at]),
                ({"from_time": time, **backwards}, [event for event in own[::-1] if event.record_time <= at]),
            ]
            for request, expected in cases:
                assert await read(max_count=count, **request) == expected[: count or None]
        nobody = ReadAggregateRequest(aggregate_id="nobody", direction=READ_DIRECTION_BACKWARDS)
        assert await events_of(served.service.ReadAggregate(nobody, CONTEXT)) == []

    scenario(tmp_path, play)


def test_the_log_is_read_from_any_position_or_time_with_any_filter(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        write_mixed(log, 1_500)

        async def read(**request: Any) -> list[EventRecord]:
            return await events_of(served.service.ReadLog(ReadLogRequest(**request), CONTEXT))

        assert await read() == log.events
        rng = random.Random(2)
        for _ in range(40):
            count = rng.choice([0, 1, 5, 10_000])
            position = rng.randint(1, 1_502)
            at = rng.choice(log.events).record_time + rng.choice([-1, 0, 1])
            filters = {
                "aggregate_types": rng.choice([[], ["order"]]),
                "event_types": rng.choice([[], ["example.v1.A"], ["example.v1.A", "example.v1.C"]]),
                "aggregate_ids": rng.choice([[], ["order-1", "customer-2"], ["nobody"]]),
            }
            chosen = [
                event
                for event in log.events
                if (not filters["aggregate_types"] or event.aggregate_type in filters["aggregate_types"])
                and (not filters["event_types"] or event.event_type in filters["event_types"])
                and (not filters["aggregate_ids"] or event.aggregate_id in filters["aggregate_ids"])
            ]
            common = {"filter": EventFilter(**filters), "max_count": count}
            from_position = [event for event in chosen if event.position >= position]
            assert await read(from_position=position, **common) == from_position[: count or None]
            from_time = [event for event in chosen if event.record_time >= at]
            assert await read(from_time=to_timestamp(at), **common) == from_time[: count or None]

    scenario(tmp_path, play)


def test_the_log_is_read_up_to_where_it_was_when_the_call_began(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(1_200)
        chunks = served.service.ReadLog(ReadLogRequest(), CONTEXT)
        first = await anext(aiter(chunks))
        log.write_many(50)
        rest = await events_of(chunks)
        assert [*map(from_wire, first.events), *rest] == log.events[:1_200]

    scenario(tmp_path, play)


def test_a_log_that_is_replaced_while_it_is_read_is_not_read_on(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(1_200)
        chunks = served.service.ReadLog(ReadLogRequest(), CONTEXT)
        await anext(aiter(chunks))
        with store._write_engine.begin() as connection:
            begin_epoch(connection)
        with pytest.raises(HistoryChanged):
            await events_of(chunks)

    scenario(tmp_path, play)


def test_the_description_of_the_log_has_its_head_at_once_its_epochs_and_its_sizes(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        empty = await served.service.DescribeLog(DescribeLogRequest(), CONTEXT)
        assert (empty.position, empty.hash, empty.HasField("record_time")) == (0, bytes(32), False)
        last = log.write_many(10)[-1]
        described = await served.service.DescribeLog(DescribeLogRequest(), CONTEXT)
        assert (described.position, described.hash) == (10, last.hash)
        assert described.record_time == to_timestamp(last.record_time)
        assert described.database_bytes > 10_000
        assert [epoch.epoch for epoch in described.epochs] == [described.epoch]
        with store._write_engine.begin() as connection:
            new = begin_epoch(connection, 7)
        described = await served.service.DescribeLog(DescribeLogRequest(), CONTEXT)
        assert described.epoch == new.epoch
        assert [epoch.fork_position for epoch in described.epochs] == [0, 7]

    scenario(tmp_path, play)


def test_malformed_requests_and_a_write_db_that_is_away_are_told(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        with pytest.raises(InvalidRequest):
            await events_of(served.service.ReadAggregate(ReadAggregateRequest(), CONTEXT))
        with pytest.raises(InvalidRequest):
            await events_of(served.service.ReadLog(ReadLogRequest(max_count=-1), CONTEXT))

        def fail() -> None:
            raise StoreError("away")

        store.before = fail
        with pytest.raises(StoreUnavailable):
            await events_of(served.service.ReadLog(ReadLogRequest(), CONTEXT))

    scenario(tmp_path, play)
