"""Subscriptions: whatever happens while they run, each event once, in order, or an end that says why."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from command_server.events.tail import TailLimits
from cqrs.errors import HistoryChanged, Overloaded, ShuttingDown, StoreUnavailable
from cqrs.records import to_timestamp
from cqrs.store.epochs import begin_epoch
from cqrs.store.port import StoreError
from cqrs.store.sql import SqlEventStore
from orderstream.events.v1.event_service_pb2 import EventFilter, SubscribeRequest
from tests.integration.events.serving import Served, WatchedStore, serving, watched_log
from tests.integration.events.writing import START, Draft, LogWriter


def scenario(
    folder: Path, play: Callable[[Served, WatchedStore, LogWriter], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def run(store: WatchedStore, log: LogWriter) -> None:
        async with serving(store, **settings) as served:
            await play(served, store, log)

    with watched_log(folder) as (store, log):
        asyncio.run(run(store, log))


def up_to(position: int, first: int = 1) -> list[int]:
    return list(range(first, position + 1))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("read", range(5))
def test_an_event_that_is_committed_between_catching_up_and_going_live_is_delivered_once(
    tmp_path: Path, place: str, read: int
) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(7)
        left = read

        def commit_once() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                log.write_many(2)

        setattr(store, place, commit_once)
        async with served.subscriber(SubscribeRequest(max_events=3)) as subscriber:
            await subscriber.read_until(9)
            log.write_many(1)
            await subscriber.read_until(10)
            assert subscriber.positions == up_to(10)
            await subscriber.read_until_caught_up()

    scenario(tmp_path, play)


@pytest.mark.parametrize("seed", range(6))
def test_every_event_comes_once_and_in_order_however_commits_and_reads_interleave(tmp_path: Path, seed: int) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        rng = random.Random(seed)
        log.write_many(rng.randrange(60))

        def commit_some() -> None:
            with one_at_a_time:
                if len(log.events) < 300 and rng.random() < 0.4:
                    log.write_many(rng.randrange(1, 12))

        one_at_a_time = threading.Lock()
        store.before = store.after = commit_some

        async def follow(max_events: int) -> list[int]:
            async with served.subscriber(SubscribeRequest(max_events=max_events)) as subscriber:
                while subscriber.last.position < 300:
                    await subscriber.read()
                    if rng.random() < 0.3:
                        await asyncio.sleep(rng.random() * 0.05)
                return subscriber.positions[:300]

        followed = await asyncio.gather(*(follow(max_events) for max_events in (1, 4, 50, 1000)))
        assert followed == [up_to(300)] * 4

    scenario(tmp_path, play, tail=TailLimits(events=20, bytes=1 << 20, poll_seconds=0.005))


def test_a_subscriber_that_falls_behind_what_is_in_memory_reads_on_from_the_write_db(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async with served.subscriber() as slow, served.subscriber() as quick:
            await slow.read_until_caught_up()
            await quick.read_until_caught_up()
            for _ in range(20):
                log.write_many(10)
                await quick.read_until(len(log.events))
            assert served.metric("orderstream_tail_events") == 15
            await slow.read()
            assert served.metric("orderstream_subscribers_behind") == 1
            await slow.read_until(200)
            log.write_many(3)
            await slow.read_until(203)
            assert served.metric("orderstream_subscribers_behind") == 0
            await quick.read_until(203)
            assert slow.positions == quick.positions == up_to(203)
        assert served.metric("orderstream_subscribers") == 0
        assert served.metric("orderstream_tail_events") == 0

    scenario(tmp_path, play, tail=TailLimits(events=15, bytes=1 << 20, poll_seconds=0.01))


def test_what_is_kept_in_memory_is_bounded_in_bytes_too_but_for_one_event(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async with served.subscriber() as subscriber:
            await subscriber.read_until_caught_up()
            log.write_many(30, data=b"x" * 10_000)
            await subscriber.read_until(30)
            assert served.metric("orderstream_tail_events") == 9
            assert served.metric("orderstream_tail_bytes") <= 100_000
            log.write(Draft(data=b"x" * 200_000))
            await subscriber.read_until(31)
            assert served.metric("orderstream_tail_events") == 1
            assert subscriber.positions == up_to(31)

    scenario(tmp_path, play, tail=TailLimits(events=1_000, bytes=100_000, poll_seconds=0.01))


def test_live_subscribers_share_the_reading(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async def follow(ready: asyncio.Semaphore) -> list[int]:
            async with served.subscriber() as subscriber:
                await subscriber.read_until_caught_up()
                ready.release()
                await subscriber.read_until(100)
                return subscriber.positions

        ready = asyncio.Semaphore(0)
        following = [asyncio.create_task(follow(ready)) for _ in range(50)]
        for _ in range(50):
            await ready.acquire()
        before = served.metric("orderstream_subscription_pages_total")
        log.write_many(100)
        served.service.head_moved(100)
        assert await asyncio.gather(*following) == [up_to(100)] * 50
        assert served.metric("orderstream_subscription_pages_total") - before == 1
        assert served.metric("orderstream_subscription_events_total") == 50 * 100

    scenario(tmp_path, play, tail=TailLimits(poll_seconds=60))


def test_a_subscriber_is_told_when_it_has_caught_up_and_how_far_it_is_while_nothing_is_chosen(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write(*[Draft("a", "order"), Draft("b", "customer")] * 5)
        chosen = SubscribeRequest(filter=EventFilter(aggregate_types=["order"]))
        async with served.subscriber(chosen) as subscriber:
            first = await subscriber.read()
            assert ([event.position for event in first.events], first.position) == ([1, 3, 5, 7, 9], 10)
            assert first.caught_up
            log.write(*[Draft("b", "customer")] * 5)
            passed = await subscriber.read()
            assert (list(passed.events), passed.position, passed.caught_up) == ([], 15, True)
            log.write(Draft("b", "customer"), Draft("a", "order"))
            at_once = await subscriber.read()
            assert ([event.position for event in at_once.events], at_once.position) == ([17], 17)
        async with served.subscriber(SubscribeRequest(from_end=True)) as subscriber:
            nothing = await subscriber.read()
            assert (list(nothing.events), nothing.position, nothing.caught_up) == ([], 17, True)

    scenario(tmp_path, play)


@pytest.mark.parametrize("max_events", [1, 3, 10])
def test_after_any_answer_its_token_leads_on_behind_it_also_with_another_filter(
    tmp_path: Path, max_events: int
) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write(*(Draft(f"{kind}-1", kind) for kind in "abbacabbba" * 3))
        tokens = [""]
        seen: list[int] = []
        while tokens[-1] not in tokens[:-1] and len(seen) < 12:
            chosen = EventFilter(aggregate_types=["a"])
            request = SubscribeRequest(filter=chosen, max_events=max_events, resume_token=tokens[-1])
            if not tokens[-1]:
                request.ClearField("resume_token")
            async with served.subscriber(request) as subscriber:
                await subscriber.read()
            seen += subscriber.positions
            tokens.append(subscriber.last.resume_token)
        assert seen == [event.position for event in log.events if event.aggregate_type == "a"]
        async with served.subscriber(SubscribeRequest(resume_token=tokens[1])) as subscriber:
            await subscriber.read_until(30)
            assert subscriber.positions == up_to(30, seen[max_events - 1] + 1)

    scenario(tmp_path, play)


def test_a_subscription_can_begin_at_a_position_a_time_or_the_end_also_ahead_of_the_log(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        times = [START + seconds * 1_000_000 for seconds in (1, 1, 2, 2, 2, 4)]
        log.write(*(Draft(record_time=time) for time in times))

        async def positions(request: SubscribeRequest, end: int) -> list[int]:
            async with served.subscriber(request) as subscriber:
                await subscriber.read_until(end)
                return subscriber.positions

        assert await positions(SubscribeRequest(from_position=4), 6) == [4, 5, 6]
        assert await positions(SubscribeRequest(from_time=to_timestamp(times[2])), 6) == [3, 4, 5, 6]
        assert await positions(SubscribeRequest(from_time=to_timestamp(times[0] - 1)), 6) == up_to(6)

        ahead = [
            SubscribeRequest(from_position=9),
            SubscribeRequest(from_time=to_timestamp(START + 9_000_000)),
            SubscribeRequest(from_end=True),
        ]
        tokens = []
        for request in ahead:
            async with served.subscriber(request) as subscriber:
                answer = await subscriber.read()
                assert (answer.position, answer.caught_up, list(answer.events)) == (6, True, [])
                tokens.append(SubscribeRequest(resume_token=answer.resume_token))
        log.write(*(Draft(record_time=START + 8_000_000 + second * 1_000_000) for second in range(5)))
        for request in tokens:
            expected = {0: [9, 10, 11], 1: [8, 9, 10, 11], 2: [7, 8, 9, 10, 11]}[tokens.index(request)]
            assert await positions(request, 11) == expected

    scenario(tmp_path, play)


def test_a_start_far_ahead_holds_though_the_subscriber_falls_behind_what_is_in_memory(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async with (
            served.subscriber(SubscribeRequest(from_position=25)) as slow,
            served.subscriber() as quick,
        ):
            await slow.read()
            log.write_many(40)
            await quick.read_until(40)
            assert served.metric("orderstream_tail_events") == 5
            await slow.read_until(40)
            assert slow.positions == up_to(40, 25)

    scenario(tmp_path, play, tail=TailLimits(events=5, poll_seconds=0.01))


def replace(store: SqlEventStore, fork_position: int) -> None:
    """As a restore does: a new epoch from here on. (What lies behind would be other events.)"""
    with store._write_engine.begin() as connection:
        begin_epoch(connection, fork_position)


def test_a_token_of_a_lost_branch_is_refused_and_one_from_before_the_fork_is_as_good_as_ever(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(10)
        tokens = {}
        async with served.subscriber(SubscribeRequest(max_events=1)) as subscriber:
            while subscriber.last.position < 10:
                answer = await subscriber.read()
                tokens[answer.position] = answer.resume_token
        replace(store, 6)
        for position, token in tokens.items():
            async with served.subscriber(SubscribeRequest(resume_token=token)) as subscriber:
                if position <= 6:
                    await subscriber.read_until(10)
                    assert subscriber.positions == up_to(10, position + 1)
                else:
                    with pytest.raises(HistoryChanged):
                        await subscriber.read()

    scenario(tmp_path, play)


def test_a_token_ahead_of_the_log_is_of_a_history_that_was_lost(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(3)
        async with served.subscriber() as subscriber:
            await subscriber.read_until(3)
            token = subscriber.last.resume_token
        with store._write_engine.begin() as connection:
            connection.exec_driver_sql("UPDATE log_head SET position = 2")
        async with served.subscriber(SubscribeRequest(resume_token=token)) as subscriber:
            with pytest.raises(HistoryChanged):
                await subscriber.read()

    scenario(tmp_path, play)


def test_a_log_that_is_replaced_ends_the_subscriptions_that_follow_it(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(10)
        async with (
            served.subscriber() as live,
            served.subscriber(SubscribeRequest(max_events=2)) as behind,
        ):
            await live.read_until_caught_up()
            await behind.read()
            replace(store, 8)
            for subscriber in (live, behind):
                with pytest.raises(HistoryChanged):
                    await subscriber.read_until(100)
        async with served.subscriber(SubscribeRequest(from_position=9)) as subscriber:
            await subscriber.read_until(10)
            assert subscriber.positions == [9, 10]

    scenario(tmp_path, play)


def test_another_history_of_the_same_epoch_is_told_by_the_hash_chain(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(5)
        async with served.subscriber() as live:
            await live.read_until_caught_up()
            with store._write_engine.begin() as connection:
                connection.exec_driver_sql("UPDATE log_head SET hash = zeroblob(32)")
            log.write_many(1)  # continues something else than what was delivered
            with pytest.raises(HistoryChanged):
                await live.read()

    scenario(tmp_path, play)


def test_a_drain_ends_every_subscription_so_that_the_client_goes_elsewhere(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(10)
        async with (
            served.subscriber() as live,
            served.subscriber(SubscribeRequest(max_events=2)) as behind,
        ):
            await live.read_until_caught_up()
            await behind.read()
            waiting = asyncio.create_task(live.read())
            await asyncio.sleep(0)
            served.draining.set()
            for reading in (waiting, behind.read()):
                with pytest.raises(ShuttingDown):
                    await reading
        async with served.subscriber() as late:
            with pytest.raises(ShuttingDown):
                await late.read_until(100)

    scenario(tmp_path, play)


def test_a_write_db_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(10)
        failures = 0

        def fail() -> None:
            nonlocal failures
            if 0 < failures <= 5:
                failures += 1
                raise StoreError("away")

        store.before = fail
        async with (
            served.subscriber() as live,
            served.subscriber(SubscribeRequest(max_events=2)) as behind,
        ):
            await live.read_until_caught_up()
            await behind.read()
            failures = 1
            log.write_many(2)
            await asyncio.gather(live.read_until(12), behind.read_until(12))
            assert live.positions == behind.positions == up_to(12)

    scenario(tmp_path, play)


def test_a_write_db_that_stays_away_ends_subscriptions_with_a_reason_and_the_token_leads_on(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        log.write_many(10)

        def fail() -> None:
            raise StoreError("away")

        async with served.subscriber() as live:
            await live.read_until_caught_up()
            store.before = fail
            with pytest.raises(StoreUnavailable):
                await live.read()
        async with served.subscriber() as late:
            with pytest.raises(StoreUnavailable):
                await late.read()
        del store.before
        log.write_many(1)
        async with served.subscriber(SubscribeRequest(resume_token=live.last.resume_token)) as again:
            await again.read_until(11)
            assert again.positions == [11]

    scenario(tmp_path, play, patience_seconds=0.2)


def test_a_gap_in_the_log_is_never_passed_over_in_silence(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async with served.subscriber() as live:
            await live.read_until_caught_up()
            with store._write_engine.begin() as connection:
                connection.exec_driver_sql("UPDATE log_head SET position = 1, hash = zeroblob(32)")
            with pytest.raises(StoreUnavailable):
                await live.read()

    scenario(tmp_path, play, patience_seconds=0.1)


def test_more_subscribers_than_there_may_be_are_refused_until_one_leaves(tmp_path: Path) -> None:
    async def play(served: Served, store: WatchedStore, log: LogWriter) -> None:
        async with served.subscriber() as first:
            await first.read()
            async with served.subscriber() as second:
                await second.read()
                async with served.subscriber() as third:
                    with pytest.raises(Overloaded):
                        await third.read()
            assert served.metric("orderstream_subscriptions_refused_total") == 1
            async with served.subscriber() as fourth:
                await fourth.read()

    scenario(tmp_path, play, max_subscribers=2)
