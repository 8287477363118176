"""A projection follows the log through everything that can happen to broker, stream and consumer. Invariant 7."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from cqrs import failpoints
from cqrs.projection.status import CATCHING_UP, HALTED, LIVE, RETRYING, STARTING
from readmodel.orders import OrdersProjection
from readmodel.sales import SalesProjection
from tests.integration.projection.read_db import assert_shows, new_read_db, standing
from tests.integration.projection.world import STREAM, World, steady, until, world
from tests.orders_history import EPOCH, History, random_history

ORDERS, SALES = OrdersProjection(), SalesProjection()
OTHER_EPOCH = "22222222-2222-7222-8222-222222222222"


def test_the_log_is_caught_up_and_then_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(2500, seed=1)
        async with world(tmp_path, history) as w:
            await w.publish(history.events[:2400])
            async with w.projector(ORDERS, SALES) as projector:
                await projector.reaches(2400)
                await projector.shows(LIVE)
                assert [state for name, state, _ in projector.observer.states if name == "orders"] == [
                    CATCHING_UP,
                    LIVE,
                ]
                for event in history.events[2400:]:
                    await w.publish([event], wait=False)
                await projector.reaches(2500)
                assert max(events for _, events in projector.observer.batches) > 100, "catching up goes in batches"
                assert projector.status.lag.events == 0
            assert_shows(w.engine, ORDERS, history)
            assert_shows(w.engine, SALES, history)

    asyncio.run(scenario())


def test_an_event_is_visible_within_milliseconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(140, seed=1)
        async with world(tmp_path, history) as w, w.projector() as projector:
            await projector.shows(LIVE)
            times = []
            for event in history.events:
                started = time.perf_counter()
                await w.publish([event], wait=False)
                await projector.reaches_at_once(event.position)
                times.append(time.perf_counter() - started)
            assert sorted(times)[len(times) // 2] < 0.05

    asyncio.run(scenario())


def test_each_commit_is_told_with_its_keys_and_positions_without_a_gap(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = History()
        history.register("c1")
        history.create("o1", "c1")
        async with world(tmp_path, history) as w:
            heard = await w.notifications()
            async with w.projector() as projector:
                await w.publish()
                await projector.reaches(2)
                for number in range(1500):
                    history.register(f"d{number}")
                await w.publish(history.events[2:])
                await projector.reaches(1502)
                await until(lambda: bool(heard) and heard[-1].to_position == 1502)
        assert {change.epoch for change in heard} == {EPOCH}
        assert {(change.projection, change.generation, change.slot) for change in heard} == {("orders", 1, 0)}
        assert [change.from_position for change in heard] == [0, *(change.to_position for change in heard[:-1])]
        keys = {key for change in heard for key in change.keys if change.to_position <= 2}
        assert keys == {"customers:c1", "orders:o1"}
        assert all(bool(change.keys) != change.flush for change in heard)
        assert all(len(change.keys) <= 1000 for change in heard)

    asyncio.run(scenario())


def test_duplicates_are_acknowledged_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        history = random_history(50, seed=2)
        slow = iter([1.0])
        async with world(tmp_path, history) as w:
            await w.publish()
            # The first commit outlasts the time that the broker waits for acknowledgements: it delivers again.
            with failpoints.arm("projection.before_commit", lambda: time.sleep(next(slow, 0.0))):
                async with w.projector() as projector:
                    await projector.reaches(50)
                    await steady()
                    consumer = await w.consumer()
                    assert sum(events for _, events in projector.observer.batches) == 50
                    assert projector.status.state == LIVE
            assert consumer is not None
            assert consumer.delivered is not None
            assert consumer.delivered.consumer_seq > 50, "nothing came twice"
            assert (consumer.num_ack_pending, consumer.num_redelivered) == (0, 0)
            assert_shows(w.engine, ORDERS, history)

    monkeypatch.setattr("cqrs.projection.stream._ACK_WAIT_SECONDS", 0.2)
    asyncio.run(scenario())


def test_a_gap_in_the_stream_is_filled_from_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(3000, seed=3)
        async with world(tmp_path, history) as w:
            w.fill_log()
            await w.publish()
            await w.js.delete_msg(STREAM, 2700)
            await w.js.purge_stream(STREAM, seq=2501)
            async with w.serve_log(), w.projector() as projector:
                await projector.reaches(3000)
                assert projector.status.healed_events == 2501
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_a_gap_waits_visibly_for_the_log_and_then_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(100, seed=3)
        async with world(tmp_path, history) as w:
            w.fill_log()
            await w.publish()
            await w.js.delete_msg(STREAM, 60)
            async with w.serve_log():
                address = w.event_service
            async with w.projector() as projector:
                await projector.shows(RETRYING, f"EventService of the command server at {address}: UNAVAILABLE")
                assert projector.status.position == 59
            async with w.serve_log(), w.projector() as projector:
                await projector.reaches(100)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_a_stream_that_is_ahead_of_the_log_halts(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(100, seed=3)
        async with world(tmp_path, history) as w:
            w.fill_log(history.events[:50])
            await w.publish()
            async with w.serve_log(), w.projector() as projector:
                await projector.shows(HALTED, "the stream is ahead of the log")
                assert projector.status.position == 0

    asyncio.run(scenario())


def test_a_branch_that_a_restored_log_has_lost_is_not_applied_even_if_it_chains(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(100, seed=3)
        async with world(tmp_path, history) as w:
            w.fill_log(history.events[:50])
            await w.publish(history.events[:50])
            async with w.serve_log(), w.projector() as projector:
                await projector.reaches(50)
            await w.publish(history.events[50:])
            async with w.projector(confirm_seconds=60) as projector:
                await projector.shows(RETRYING, "waiting for the log to confirm the stream")
            async with w.serve_log(), w.projector() as projector:
                await projector.shows(HALTED, "the log was restored to an older point")
            assert_shows(w.engine, ORDERS, history, 50)

    asyncio.run(scenario())


def test_a_halted_projection_goes_on_by_itself_once_it_is_mended(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(60, seed=3)
        async with world(tmp_path, history) as w:
            w.fill_log(history.events[:50])
            await w.publish()
            async with w.serve_log(), w.projector() as projector:
                await projector.shows(HALTED, "the stream is ahead of the log")
                w.fill_log()
                await projector.reaches(60)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["hash", "epoch"])
def test_an_event_that_does_not_chain_halts_and_is_not_applied(tmp_path: Path, what: str) -> None:
    async def scenario() -> None:
        history, other = random_history(30, seed=4), random_history(30, seed=5)
        async with world(tmp_path, history) as w:
            await w.publish(history.events[:20])
            async with w.projector() as projector:
                await projector.reaches(20)
                if what == "hash":
                    await w.publish(other.events[20:21])
                    await projector.shows(HALTED, "event 21 ")
                    assert history.events[19].hash.hex() in projector.status.error
                else:
                    await w.publish(history.events[20:21], epoch=OTHER_EPOCH)
                    await projector.shows(HALTED, OTHER_EPOCH)
                    assert EPOCH in projector.status.error
                await w.publish(history.events[21:])
                await steady()
                assert projector.status.state == HALTED
            assert_shows(w.engine, ORDERS, history, 20)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "where", ["epoch of the stream", "event at the checkpoint", "end of the log", "event of the log"]
)
def test_a_stream_or_log_of_another_history_is_noticed_at_the_start(tmp_path: Path, where: str) -> None:
    async def scenario() -> None:
        history, other = random_history(30, seed=4), random_history(60, seed=5)
        async with world(tmp_path, history) as w:
            await w.publish()
            async with w.projector() as projector:
                await projector.reaches(30)
            await w.js.delete_stream(STREAM)
            expected = {
                "epoch of the stream": f"is of epoch {OTHER_EPOCH}",
                "event at the checkpoint": "has hash",
                "end of the log": "it has lost events",
                "event of the log": "is not the event that the read model has applied",
            }[where]
            await w.make_stream(OTHER_EPOCH if where == "epoch of the stream" else None)
            if where == "event at the checkpoint":
                await w.publish(other.events)
            if where.endswith("of the log"):
                w.log._head = w.log._head._replace(epoch=EPOCH)
                w.fill_log(history.events[:20] if where == "end of the log" else other.events)
            async with w.serve_log(), w.projector() as projector:
                await projector.shows(HALTED, expected)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_the_checkpoint_and_not_the_consumer_says_where_to_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(300, seed=6)
        async with world(tmp_path, history) as w:
            await w.publish(history.events[:200])
            async with w.projector() as projector:
                await projector.reaches(200)
            # The consumer has everything acknowledged, and a read DB from scratch does not care.
            w.engine.dispose()
            for file in tmp_path.glob("read.db*"):
                file.unlink()
            w.engine = new_read_db(tmp_path)
            async with w.projector() as projector:
                await projector.reaches(200)
                await w.publish(history.events[200:])
                await projector.reaches(300)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_a_consumer_that_stands_at_the_checkpoint_is_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(300, seed=6)
        async with world(tmp_path, history) as w:
            await w.publish(history.events[:200])
            async with w.projector() as projector:
                await projector.reaches(200)
                await projector.shows(LIVE)
            before = await w.consumer()
            async with w.projector() as projector:
                await w.publish(history.events[200:])
                await projector.reaches(300)
            after = await w.consumer()
            assert before is not None
            assert after is not None
            assert before.created == after.created
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_a_consumer_that_was_deleted_is_bound_again_from_the_checkpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(300, seed=6)
        async with world(tmp_path, history) as w, w.projector() as projector:
            await w.publish(history.events[:100])
            await projector.reaches(100)
            await w.js.delete_consumer(STREAM, "projector-orders-g1-s0")
            await until(lambda: any("consumer projector-orders" in error for *_, error in projector.observer.states))
            await w.publish(history.events[100:])
            await projector.reaches(300)
            await projector.shows(LIVE)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_a_stream_that_was_deleted_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(300, seed=6)
        async with world(tmp_path, history) as w:
            w.log._head = w.log._head._replace(epoch=EPOCH)
            w.fill_log()
            async with w.serve_log(), w.projector() as projector:
                await w.publish(history.events[:200])
                await projector.reaches(200)
                await w.js.delete_stream(STREAM)
                await projector.shows(RETRYING, f"stream {STREAM} does not exist")
                await w.make_stream()
                await w.publish(history.events[:150])
                await projector.shows(LIVE)
                await w.publish(history.events[150:])
                await projector.reaches(300)
                assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_without_a_stream_the_projection_waits_for_the_relay(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(10, seed=6)
        async with world(tmp_path, history, stream=False) as w, w.projector() as projector:
            await projector.shows(RETRYING, "waiting for the relay")
            await w.make_stream()
            await w.publish()
            await projector.reaches(10)

    asyncio.run(scenario())


def test_a_broker_that_is_away_is_shown_and_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(400, seed=7)
        async with world(tmp_path, history) as w:
            await w.publish(history.events[:200])
            async with w.projector(ORDERS, SALES) as projector:
                await projector.reaches(200)
                await w.client.close()
                port = w.broker.port
                await w.broker.stop()
                await projector.shows(RETRYING, "the broker is away")
                w.broker._port = port
                await w.broker.start()
                await w.connect()
                await w.publish(history.events[200:])
                await projector.reaches(400)
                await projector.shows(LIVE)
            assert_shows(w.engine, ORDERS, history)
            assert_shows(w.engine, SALES, history)

    asyncio.run(scenario())


def test_a_connection_that_was_lost_and_made_again_is_noticed_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(40, seed=7)
        async with world(tmp_path, history) as w, w.projector() as projector:
            await projector.shows(LIVE)
            await w.publish(history.events[:20])
            await projector.reaches(20)
            connection = projector.connection
            connects = connection.connects
            connection.client._transport.close()  # type: ignore[union-attr]
            await until(lambda: connection.connects > connects)
            started = time.monotonic()
            await w.publish(history.events[20:])
            await projector.reaches(40)
            await projector.shows(LIVE)
            assert time.monotonic() - started < 3
        assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_the_stop_signal_ends_a_projection_that_waits_for_the_broker(tmp_path: Path) -> None:
    async def scenario() -> None:
        w = World(tmp_path, History())
        async with w.broker:
            await w.broker.stop()
            started = time.monotonic()
            async with w.projector() as projector:
                assert projector.status.state == STARTING
                await projector.shows(RETRYING, "the broker is away")
                started = time.monotonic()
            assert time.monotonic() - started < 5
        w.engine.dispose()

    asyncio.run(scenario())


def test_an_event_that_cannot_be_applied_is_retried_and_never_skipped(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(50, seed=8)
        history.cancel("o-unknown")
        random_history(100, seed=9, history=history)
        async with world(tmp_path, history) as w:
            await w.publish()
            async with w.projector(ORDERS, SALES) as projector:
                await projector.shows(RETRYING, "event 51 (orderstream.orders.v1.OrderCancelled of order o-unknown")
                retries = projector.status.retries
                await until(lambda: projector.status.retries >= retries + 3)
                assert projector.status.position == 50
                shown = [state for name, state, _ in projector.observer.states if name == "orders"]
                assert shown[-1] == RETRYING
                assert shown.count(RETRYING) <= 2, "it does not look well in between"
            assert_shows(w.engine, ORDERS, history, 50)
            assert_shows(w.engine, SALES, history, 50)

    asyncio.run(scenario())


def test_projections_are_independent(tmp_path: Path) -> None:
    class FailingOrders(OrdersProjection):
        def apply(self, *_: object) -> None:
            raise RuntimeError("a defect")

    async def scenario() -> None:
        history = random_history(100, seed=8)
        async with world(tmp_path, history) as w:
            await w.publish()
            async with w.projector(FailingOrders(), SALES) as projector:
                await projector.shows(RETRYING, "a defect")
                await until(lambda: projector.runners[1].status.position == 100)
            assert_shows(w.engine, SALES, history)
            assert_shows(w.engine, ORDERS, history, 0)

    asyncio.run(scenario())


def test_a_database_that_fails_is_retried(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(100, seed=8)
        failures = iter(range(3))

        def fail_thrice() -> None:
            if next(failures, None) is not None:
                raise sa.exc.OperationalError("COMMIT", {}, Exception("disk is full"))

        async with world(tmp_path, history) as w:
            await w.publish()
            with failpoints.arm("projection.before_commit", fail_thrice):
                async with w.projector() as projector:
                    await projector.reaches(100)
                    assert any("disk is full" in error for *_, error in projector.observer.states)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_two_projectors_on_one_read_db_do_no_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(2000, seed=10)
        async with world(tmp_path, history) as w:
            w.log._head = w.log._head._replace(epoch=EPOCH)
            w.fill_log()
            async with w.serve_log(), w.projector() as first, w.projector() as second:
                for start in range(0, 2000, 40):
                    await w.publish(history.events[start : start + 40])
                    await asyncio.sleep(0.01)
                await until(lambda: max(first.status.position, second.status.position) == 2000)
            assert_shows(w.engine, ORDERS, history)

    asyncio.run(scenario())


def test_stopping_finishes_the_batch_in_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        history = random_history(3000, seed=11)
        async with world(tmp_path, history) as w:
            await w.publish()
            async with w.projector() as projector:
                await until(lambda: projector.status.position > 0)
            checkpoint, _ = standing(w.engine, ORDERS)
            assert checkpoint is not None
            assert checkpoint.position == projector.status.position
            assert_shows(w.engine, ORDERS, history, checkpoint.position)

    asyncio.run(scenario())
