"""DESIGN, invariant 10: a cache never hides what a client has already seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from cqrs.errors import HistoryChanged, Overloaded, ReadModelBehind, Rejected, StoreUnavailable
from cqrs.tokens import decode_token
from orderstream.orders.v1.queries_pb2 import GetOrderRequest, GetOrderResponse
from orderstream.types.v1.freshness_pb2 import FreshnessState
from query_server.reader import Snapshot
from tests.integration.query_server.read_db import EPOCH, OTHER_EPOCH, ReadDb
from tests.integration.query_server.rig import Context, Rig, running, token


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ReadDb]:
    db = ReadDb(tmp_path / "read.db")
    yield db
    db.close()


async def get(
    rig: Rig,
    order_id: str = "o1",
    *,
    position: int = 0,
    epoch: str = "",
    wait: float = 2.0,
    deadline: float | None = None,
) -> GetOrderResponse:
    request = GetOrderRequest(order_id=order_id)
    if position:
        request.consistency_token = token(position, **({"epoch": epoch} if epoch else {}))
        request.max_wait.CopyFrom(Duration(seconds=int(wait), nanos=int(wait % 1 * 1e9)))
    context: Any = Context(deadline)
    return GetOrderResponse.FromString(await rig.orders.get_order(request, context))


def test_a_second_get_is_answered_without_a_read(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            first, second = await get(rig), await get(rig)
            assert first.order == second.order
            assert first.order.customer_name == "Ada"
            assert first.order.customer_email == "c1@example.org"
            assert rig.database.rows_read == 1
            assert (rig.cache.counters.hits, rig.cache.counters.misses) == (1, 1)

    asyncio.run(scenario())


def test_a_fill_that_read_before_an_invalidation_is_answered_and_not_kept(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            rig.database.open.clear()
            reader = asyncio.create_task(get(rig))
            await rig.database.reading()  # it has the old row in hand
            rig.notify(db.order("o1", 2, version=2))
            rig.database.open.set()
            assert (await reader).order.version == 1
            assert len(rig.cache) == 0
            assert rig.cache.counters.refused == 1
            assert (await get(rig)).order.version == 2

    asyncio.run(scenario())


def test_a_fill_is_kept_when_only_other_keys_changed_while_it_read(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            rig.database.open.clear()
            reader = asyncio.create_task(get(rig))
            await rig.database.reading()
            rig.notify(db.order("o2", 2))
            rig.database.open.set()
            await reader
            assert len(rig.cache) == 1
            assert rig.cache.counters.refused == 0

    asyncio.run(scenario())


def test_a_fill_that_read_before_a_flush_is_not_kept(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            rig.database.open.clear()
            reader = asyncio.create_task(get(rig))
            await rig.database.reading()
            db.order("o1", 2, version=2)  # its notification is lost
            rig.notify(db.order("o2", 3))
            rig.database.open.set()
            assert (await reader).order.version == 1
            assert len(rig.cache) == 0
            assert (await get(rig)).order.version == 2

    asyncio.run(scenario())


def test_a_read_that_is_invalidated_while_under_way_is_not_joined(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            rig.database.open.clear()
            early = asyncio.create_task(get(rig))
            await rig.database.reading()
            rig.notify(db.order("o1", 2, version=2))
            late = asyncio.create_task(get(rig))
            await rig.database.reading()
            rig.database.open.set()
            assert (await late).order.version == 2
            assert (await early).order.version == 1
            assert (await get(rig)).order.version == 2
            assert rig.database.rows_read == 2  # the late read was kept, the early one was not

    asyncio.run(scenario())


def test_a_notification_drops_its_keys_and_no_others(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        db.order("o2", 2, version=1)
        async with running(db) as rig:
            await get(rig, "o1")
            await get(rig, "o2")
            rig.notify(db.order("o1", 3, version=2))
            assert (await get(rig, "o1")).order.version == 2
            assert (await get(rig, "o2")).order.version == 1
            assert rig.database.rows_read == 3

    asyncio.run(scenario())


def test_a_gap_in_the_notifications_flushes(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            await get(rig)
            db.order("o1", 2, version=2)  # its notification is lost
            rig.notify(db.order("o2", 3))
            assert (await get(rig)).order.version == 2
            assert rig.tracker.flushes["gap"] == 1

    asyncio.run(scenario())


def test_a_notification_with_too_many_keys_flushes(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            await get(rig)
            change = db.order("o1", 2, version=2)
            del change.keys[:]
            change.flush = True
            rig.notify(change)
            assert (await get(rig)).order.version == 2
            assert rig.tracker.flushes["asked"] == 1

    asyncio.run(scenario())


def test_a_reconnect_flushes(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            await get(rig)
            rig.tracker.feed_ended()
            db.order("o1", 2, version=2)
            assert (await get(rig)).order.version == 2
            db.order("o1", 3, version=3)
            rig.tracker.feed_began()
            assert (await get(rig)).order.version == 3

    asyncio.run(scenario())


def test_a_last_notification_that_never_comes_flushes_within_seconds(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            await get(rig)
            db.order("o1", 2, version=2)
            async with asyncio.timeout(10):
                while (await get(rig)).order.version == 1:  # noqa: ASYNC110 - asked from outside, as a client would
                    await asyncio.sleep(0.05)
            assert rig.tracker.flushes["silence"] == 1

    asyncio.run(scenario())


def test_without_a_broker_each_advance_of_the_checkpoint_flushes(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            rig.tracker.feed_ended()
            await get(rig)
            await get(rig)
            assert rig.database.rows_read == 1
            db.order("o1", 2, version=2)
            await rig.poller.poll()
            assert (await get(rig)).order.version == 2

    asyncio.run(scenario())


def test_a_token_that_contiguous_notifications_have_reached_is_answered_from_the_cache(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            for position in (2, 3):
                rig.notify(db.order("o2", position))
            answer = await get(rig, position=3)
            assert rig.database.rows_read == 1
            assert decode_token(answer.consistency_token).position == 3
            assert answer.freshness.as_of_position == 3

    asyncio.run(scenario())


def test_a_token_that_notifications_have_not_reached_asks_the_read_db(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            await get(rig)
            change = db.order("o1", 2, version=2)  # committed; its notification is still on its way
            answer = await get(rig, position=2)
            assert answer.order.version == 2
            assert answer.freshness.as_of_position == 2
            assert rig.database.rows_read == 2
            # The late notification changes nothing: what is cached shows it already.
            rig.notify(change)
            assert (await get(rig)).order.version == 2
            assert rig.database.rows_read == 2

    asyncio.run(scenario())


def test_a_cached_answer_never_claims_more_than_notifications_have_confirmed(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            db.order("o1", 2, version=2)  # its notification is still on its way
            await rig.poller.poll()
            rig.heartbeat(2)
            answer = await get(rig)
            assert answer.order.version == 1
            assert answer.freshness.as_of_position == 1
            assert decode_token(answer.consistency_token).position == 1

    asyncio.run(scenario())


def test_many_concurrent_misses_are_one_read(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            rig.database.open.clear()
            readers = [asyncio.create_task(get(rig)) for _ in range(200)]
            await rig.database.reading()
            rig.database.open.set()
            answers = await asyncio.gather(*readers)
            assert {answer.order.order_id for answer in answers} == {"o1"}
            assert rig.database.rows_read == 1

    asyncio.run(scenario())


def test_a_waiter_whose_token_is_newer_than_the_shared_read_asks_again(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1, version=1)
        async with running(db) as rig:
            rig.database.open.clear()
            early = asyncio.create_task(get(rig))
            await rig.database.reading()
            db.order("o1", 2, version=2)
            await rig.poller.poll()  # the checkpoint is known to be at 2; no notification yet
            late = asyncio.create_task(get(rig, position=2))
            await asyncio.sleep(0.05)
            assert rig.cache.counters.joined == 1
            rig.database.open.set()
            assert (await early).order.version == 1
            assert (await late).order.version == 2
            assert rig.database.rows_read == 2

    asyncio.run(scenario())


def test_a_cancelled_caller_does_not_take_the_shared_read_with_it(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            rig.database.open.clear()
            first, second = asyncio.create_task(get(rig)), asyncio.create_task(get(rig))
            await rig.database.reading()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            rig.database.open.set()
            assert (await second).order.order_id == "o1"
            assert rig.database.rows_read == 1

    asyncio.run(scenario())


def test_a_call_with_a_token_waits_until_the_projector_has_committed(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db) as rig:
            waiter = asyncio.create_task(get(rig, position=1))
            await asyncio.sleep(0.05)
            assert not waiter.done()
            change = db.order("o1", 1)
            rig.notify(change)
            assert (await waiter).order.order_id == "o1"
            assert rig.tracker.waiting == 0

    asyncio.run(scenario())


def test_a_call_that_waited_for_another_rows_change_is_answered_from_the_cache(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            waiter = asyncio.create_task(get(rig, position=2))
            await asyncio.sleep(0)
            rig.notify(db.order("o2", 2))
            assert (await waiter).order.order_id == "o1"
            assert rig.database.rows_read == 1

    asyncio.run(scenario())


def test_with_the_broker_away_the_poller_wakes_those_who_wait(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db) as rig:
            rig.tracker.feed_ended()
            waiter = asyncio.create_task(get(rig, position=1))
            await asyncio.sleep(0.05)
            db.order("o1", 1)
            started = time.monotonic()
            assert (await waiter).order.order_id == "o1"
            assert time.monotonic() - started < 1

    asyncio.run(scenario())


def test_past_max_wait_the_answer_is_read_model_behind_with_a_time_to_retry(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            started = time.monotonic()
            with pytest.raises(ReadModelBehind) as caught:
                await get(rig, position=7, wait=0.2)
            assert 0.2 <= time.monotonic() - started < 5
            assert caught.value.retry_after_seconds
            assert caught.value.metadata == {
                "projection": "orders",
                "required_position": "7",
                "current_position": "1",
            }
            assert rig.tracker.waiting == 0

    asyncio.run(scenario())


def test_a_deadline_shorter_than_max_wait_is_honoured(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db) as rig:
            started = time.monotonic()
            with pytest.raises(ReadModelBehind):
                await get(rig, position=7, wait=30, deadline=0.3)
            assert time.monotonic() - started < 5  # and not 30

    asyncio.run(scenario())


def test_a_token_of_another_history_is_refused(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            with pytest.raises(ReadModelBehind):  # nothing is known of the log yet: the token may be the newer one
                await get(rig, position=1, epoch=OTHER_EPOCH, wait=0.1)
            rig.heartbeat(1)
            with pytest.raises(HistoryChanged):
                await get(rig, position=1, epoch=OTHER_EPOCH)

    asyncio.run(scenario())


def test_a_token_that_the_read_db_shows_is_answered_without_waiting_even_if_nobody_said_so(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            db.order("o1", 2, version=2)  # its notification is lost
            assert (await get(rig, position=2, wait=0)).order.version == 2

    asyncio.run(scenario())


def test_a_token_of_an_empty_log_is_satisfied_by_an_empty_view(db: ReadDb) -> None:
    async def scenario() -> None:
        request = GetOrderRequest(order_id="o1", consistency_token=token(0), max_wait=Duration())
        context: Any = Context()
        db.forget()
        async with running(db) as rig:
            assert rig.tracker.epoch == ""
            with pytest.raises(Rejected, match="o1"):
                await rig.orders.get_order(request, context)

    asyncio.run(scenario())


def test_many_tokens_of_another_history_ask_the_read_db_once_and_hold_nobody_up(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            rig.heartbeat(1)
            before = rig.database.reads
            refused = await asyncio.gather(
                *(get(rig, position=1, epoch=OTHER_EPOCH) for _ in range(500)), return_exceptions=True
            )
            assert {type(each) for each in refused} == {HistoryChanged}
            assert rig.database.reads - before <= 5

    asyncio.run(scenario())


def test_many_unreached_tokens_ask_a_failing_read_db_once_and_starve_no_read(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db, threads=1, max_queue=1, max_waiting=1_000) as rig:
            await get(rig)
            rig.poller.failure = StoreUnavailable("as if the last poll had failed")
            before = rig.database.reads
            waiting = [asyncio.create_task(get(rig, position=2, wait=0.2)) for _ in range(500)]
            await asyncio.sleep(0)
            with pytest.raises(Rejected):  # and not Overloaded
                await get(rig, "o2")
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(each) for each in refused} == {ReadModelBehind}
            assert rig.database.reads - before <= 20  # the poller's own while they wait included

    asyncio.run(scenario())


def test_who_asks_during_a_poll_shares_the_next_one_and_not_that_one(
    db: ReadDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(db)
        polls: list[asyncio.Future[dict[str, Snapshot]]] = []

        async def snapshots(_names: Sequence[str]) -> dict[str, Snapshot]:
            polls.append(asyncio.get_running_loop().create_future())
            return await polls[-1]

        monkeypatch.setattr(rig.database, "snapshots", snapshots)
        first = asyncio.create_task(rig.poller.poll())
        await asyncio.sleep(0.01)
        late = [asyncio.create_task(rig.poller.poll()) for _ in range(10)]
        await asyncio.sleep(0.01)
        late[0].cancel()  # of no consequence to the others
        assert len(polls) == 1
        polls[0].set_result({name: Snapshot(1, 1, EPOCH, 1, 0) for name in rig.trackers})
        await first
        await asyncio.sleep(0.01)
        assert len(polls) == 2
        assert not any(poll.done() for poll in late[1:])
        polls[1].set_result({name: Snapshot(1, 1, EPOCH, 2, 0) for name in rig.trackers})
        await asyncio.gather(*late[1:])
        assert len(polls) == 2
        rig.database.close()

    asyncio.run(scenario())


def test_a_token_of_the_history_that_the_log_has_and_the_read_model_not_yet_waits(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            rig.heartbeat(1, epoch=OTHER_EPOCH)
            with pytest.raises(ReadModelBehind):
                await get(rig, position=1, epoch=OTHER_EPOCH, wait=0.1)

    asyncio.run(scenario())


def test_a_new_history_in_the_read_db_flushes_and_is_served(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 5, version=5)
        async with running(db) as rig:
            await get(rig)
            db.epoch = OTHER_EPOCH
            db.order("o1", 3, version=3)
            await rig.poller.poll()
            assert (await get(rig)).order.version == 3
            assert (await get(rig, position=3, epoch=OTHER_EPOCH)).order.version == 3
            rig.heartbeat(3, epoch=OTHER_EPOCH)
            with pytest.raises(HistoryChanged):
                await get(rig, position=5)

    asyncio.run(scenario())


def test_a_read_db_that_goes_back_flushes(db: ReadDb) -> None:
    async def scenario() -> None:
        db.order("o1", 5, version=5)
        async with running(db) as rig:
            await get(rig)
            db.order("o1", 2, version=2)  # rebuilt from the beginning
            await rig.poller.poll()
            answer = await get(rig)
            assert (answer.order.version, answer.freshness.as_of_position) == (2, 2)

    asyncio.run(scenario())


def test_an_unknown_order_is_not_found_and_never_cached(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db) as rig:
            for _ in range(2):
                with pytest.raises(Rejected) as caught:
                    await get(rig, "nobody")
                assert caught.value.reason == "ORDER_NOT_FOUND"
            assert len(rig.cache) == 0
            rig.notify(db.order("nobody", 1))
            assert (await get(rig, "nobody")).order.order_id == "nobody"

    asyncio.run(scenario())


def test_too_many_waiting_calls_are_refused_at_once(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db, max_waiting=2) as rig:
            waiters = [asyncio.create_task(get(rig, position=9, wait=1)) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(Overloaded):
                await get(rig, position=9, wait=1)
            results = await asyncio.gather(*waiters, return_exceptions=True)
            assert all(isinstance(result, ReadModelBehind) for result in results)

    asyncio.run(scenario())


def test_more_reads_than_the_queue_takes_are_refused_at_once(db: ReadDb) -> None:
    async def scenario() -> None:
        for number in range(4):
            db.order(f"o{number}", number + 1)
        async with running(db, threads=1, max_queue=1) as rig:
            rig.database.open.clear()
            running_read = asyncio.create_task(get(rig, "o0"))
            await rig.database.reading()
            queued = asyncio.create_task(get(rig, "o1"))
            await asyncio.sleep(0.05)
            with pytest.raises(Overloaded):
                await get(rig, "o2")
            rig.database.open.set()
            assert (await running_read).order.order_id == "o0"
            assert (await queued).order.order_id == "o1"

    asyncio.run(scenario())


def test_the_log_is_told_where_the_read_db_is_missing_and_clients_are_not(
    db: ReadDb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        rig = Rig(db)
        db.close()
        db.file.rename(tmp_path / "away.db")
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as refused:
                await get(rig)
            assert str(tmp_path) not in str(refused.value)
        assert caplog.text.count(str(db.file)) == 1
        rig.database.close()

    asyncio.run(scenario())


def test_a_read_db_that_goes_away_is_unavailable_and_comes_back_by_itself(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db) as rig:
            await get(rig)
            db.close()
            away = tmp_path / "away.db"
            db.file.rename(away)
            with pytest.raises(StoreUnavailable):
                await get(rig, "o2")
            with pytest.raises(StoreUnavailable):
                await rig.poller.poll()
            with pytest.raises(StoreUnavailable):
                await get(rig, "o2", position=2, wait=30)
            assert not db.file.exists(), "a reader must not create the DB"
            away.rename(db.file)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await get(rig, "o2")
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
                    except Rejected:
                        break
            await rig.poller.poll()
            assert rig.poller.failure is None

    asyncio.run(scenario())


def test_a_read_db_that_was_replaced_is_read_anew(db: ReadDb, tmp_path: Path) -> None:
    async def scenario() -> None:
        db.order("o1", 5, version=5)
        async with running(db) as rig:
            await get(rig)
            rebuilt = ReadDb(tmp_path / "rebuilt.db")
            rebuilt.order("o1", 5, version=6)
            rebuilt.close()
            db.close()
            for suffix in ("-wal", "-shm"):
                db.file.with_name(db.file.name + suffix).unlink(missing_ok=True)
            rebuilt.file.rename(db.file)
            await rig.poller.poll()
            assert (await get(rig)).order.version == 6

    asyncio.run(scenario())


def test_answers_expire_with_age_even_if_nothing_is_heard(db: ReadDb) -> None:
    async def scenario() -> None:
        now = 1000.0
        db.order("o1", 1)
        async with running(db, ttl=60, clock=lambda: now) as rig:
            await get(rig)
            now += 59
            await get(rig)
            assert rig.database.rows_read == 1
            now += 2
            await get(rig)
            assert rig.database.rows_read == 2
            assert rig.cache.counters.expirations == 1

    asyncio.run(scenario())


def test_the_cache_is_bounded_in_bytes(db: ReadDb) -> None:
    async def scenario() -> None:
        for number in range(40):
            db.order(f"o{number}", number + 1, cancel_reason="x" * 300)
        async with running(db, cache_bytes=16_000) as rig:
            for number in range(40):
                await get(rig, f"o{number}")
                assert rig.cache.bytes_used <= 16_000
            assert rig.cache.counters.evictions == 40 - len(rig.cache)
            assert 5 < len(rig.cache) < 20
            reads = rig.database.rows_read
            await get(rig, "o39")
            assert rig.database.rows_read == reads
            await get(rig, "o0")
            assert rig.database.rows_read == reads + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("options", [{"ttl": 0.0}, {"cache_bytes": 0}])
def test_a_cache_that_is_off_keeps_nothing(db: ReadDb, options: dict[str, Any]) -> None:
    async def scenario() -> None:
        db.order("o1", 1)
        async with running(db, **options) as rig:
            await get(rig)
            await get(rig)
            assert rig.database.rows_read == 2

    asyncio.run(scenario())


def test_waiters_that_gave_up_take_no_memory(db: ReadDb) -> None:
    async def scenario() -> None:
        async with running(db) as rig:
            for _ in range(10):
                waits = [rig.tracker.wait(2**60, 0.001) for _ in range(100)]
                await asyncio.gather(*waits)
            assert rig.tracker.waiting == 0
            assert len(rig.tracker._heap) <= 100

    asyncio.run(scenario())


def test_an_answer_read_just_now_is_current_if_only_the_notification_is_missing(db: ReadDb) -> None:
    async def scenario() -> None:
        now = 1000.0
        db.order("o1", 1)
        async with running(db, clock=lambda: now) as rig:
            await get(rig)
            db.order("o2", 2)  # its notification is lost
            rig.heartbeat(2)
            now += 0.9
            cached = await get(rig)
            assert cached.freshness.as_of_position == 1
            assert cached.freshness.state == FreshnessState.FRESHNESS_STATE_BEHIND
            fresh = await get(rig, "o2")
            assert fresh.freshness.as_of_position == 2
            assert fresh.freshness.state == FreshnessState.FRESHNESS_STATE_CURRENT

    asyncio.run(scenario())


def test_freshness_is_current_behind_or_unknown(db: ReadDb) -> None:
    async def scenario() -> None:
        now = 1000.0
        db.order("o1", 3)
        async with running(db, clock=lambda: now, ttl=1000) as rig:
            answer = await get(rig)
            assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN  # nothing was heard yet
            rig.heartbeat(3)
            answer = await get(rig)
            assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_CURRENT
            assert (answer.freshness.as_of_position, answer.freshness.log_position) == (3, 3)
            assert not answer.freshness.HasField("stale_for")
            assert answer.freshness.as_of_time.seconds == 1_700_000_003
            rig.heartbeat(8)
            assert (await get(rig)).freshness.state == FreshnessState.FRESHNESS_STATE_CURRENT  # for an instant
            now += 2
            rig.heartbeat(9)
            answer = await get(rig)
            assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_BEHIND
            assert answer.freshness.stale_for.seconds == 2
            assert answer.freshness.log_position == 9
            now += 6
            answer = await get(rig)
            assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN
            assert answer.freshness.stale_for.seconds == 6
            assert rig.database.rows_read == 1  # all of it from the cache but the first
            rig.heartbeat(9)
            rig.notify(db.order("o2", 9))
            answer = await get(rig)
            assert answer.freshness.state == FreshnessState.FRESHNESS_STATE_CURRENT
            assert answer.freshness.as_of_position == 9
            rig.log.connection(connected=False)
            assert (await get(rig)).freshness.state == FreshnessState.FRESHNESS_STATE_UNKNOWN

    asyncio.run(scenario())
