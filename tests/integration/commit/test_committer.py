"""Invariants 1 to 4, at the committer."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from cqrs import failpoints
from cqrs.commit.aggregates import UnknownEvent
from cqrs.commit.command import Command, Outcome
from cqrs.commit.plan import Plan
from cqrs.commit.queue import CommitLimits
from cqrs.errors import (
    AggregateIdTaken,
    DeadlinePassed,
    EventTooLarge,
    InvalidRequest,
    LogHalted,
    Overloaded,
    RequestIdReused,
    ShuttingDown,
    StoreUnavailable,
    VersionConflict,
    Violation,
)
from cqrs.serving.stop import StopSignal
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import EventStore, StoreError, WriteRefused
from cqrs.store.sql import SqlEventStore
from cqrs.tokens import decode_token
from tests.integration.commit.counters import OTHER, CounterIsFull, Decider, Submitted, running, submit_counter
from tests.integration.logs import append, assert_one_gapless_chain, new_write_db


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return new_write_db(tmp_path)
    found: str = request.getfixturevalue("postgresql_write_db")
    return found


@pytest.fixture
def sql_store(url: str) -> Iterator[SqlEventStore]:
    store = SqlEventStore(url)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore()
        return
    sqlite = request.param == "sqlite"
    opened = SqlEventStore(new_write_db(tmp_path) if sqlite else request.getfixturevalue("postgresql_write_db"))
    yield opened
    opened.close()


def parse(outcome: Outcome) -> tuple[int, int, int]:
    """(value, version, position of the token)"""
    value, version, token = StringValue.FromString(outcome.response).value.split()
    return int(value), int(version), decode_token(token).position


async def wait_until(condition: threading.Event) -> None:
    assert await asyncio.to_thread(condition.wait, 10)


class Gate:
    """A failpoint's action that waits until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(10)


def test_a_command_is_acknowledged_only_after_its_commit(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with running(sql_store) as bench:
            with failpoints.arm("store.before_commit", gate):
                command = asyncio.create_task(bench.submit(submit_counter()))
                await wait_until(gate.reached)
                await asyncio.sleep(0.05)
                assert not command.done()
                assert sql_store.read_head().position == 0
                gate.opened.set()
                assert parse(await command) == (1, 1, 1)
        assert sql_store.read_head().position == 1

    asyncio.run(scenario())


def test_no_outcome_is_answered_before_the_batch_that_it_saw_not_even_a_rejection(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with running(sql_store) as bench:
            with failpoints.arm("store.before_commit", gate):
                commands = [
                    asyncio.create_task(bench.submit(command))
                    for command in (
                        submit_counter(),
                        submit_counter(decide=Decider(limit=1)),
                        submit_counter(expected_version=7),
                        submit_counter(decide=Decider(changes=False)),
                    )
                ]
                await wait_until(gate.reached)
                await asyncio.sleep(0.05)
                assert not any(command.done() for command in commands)
                gate.opened.set()
                raised, rejected, conflict, no_op = await asyncio.gather(*commands, return_exceptions=True)
        assert isinstance(raised, Outcome)
        assert isinstance(no_op, Outcome)
        assert parse(raised) == parse(no_op) == (1, 1, 1)
        assert isinstance(rejected, CounterIsFull)
        assert isinstance(conflict, VersionConflict)

    asyncio.run(scenario())


def test_commands_that_wait_together_are_one_transaction_and_later_ones_see_earlier_ones(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            outcomes = await asyncio.gather(*(bench.submit(submit_counter()) for _ in range(100)))
        assert [parse(outcome) for outcome in outcomes] == [(n, n, n) for n in range(1, 101)]
        assert bench.heads[-1] == 100
        assert len(bench.heads) <= 2
        assert_one_gapless_chain(store.read_log(1, 1000))

    asyncio.run(scenario())


def test_of_many_with_the_same_expected_version_exactly_one_wins(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            for version in range(5):
                outcomes = await asyncio.gather(
                    *(bench.submit(submit_counter(expected_version=version)) for _ in range(64)),
                    return_exceptions=True,
                )
                assert sum(isinstance(outcome, Outcome) for outcome in outcomes) == 1
                conflicts = [outcome for outcome in outcomes if isinstance(outcome, VersionConflict)]
                assert len(conflicts) == 63
                assert {(error.expected_version, error.current_version) for error in conflicts} == {
                    (version, version + 1)
                }
        assert_one_gapless_chain(store.read_log(1, 1000))

    asyncio.run(scenario())


def test_a_request_id_takes_effect_once_and_is_answered_with_the_same_bytes(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            together = await asyncio.gather(*(bench.submit(submit_counter(request_id="r")) for _ in range(50)))
            await bench.submit(submit_counter())
            later = await bench.submit(submit_counter(request_id="r"))
        async with running(store) as restarted:
            after_restart = await restarted.submit(submit_counter(request_id="r"))
        assert {outcome.response for outcome in (*together, later, after_restart)} == {together[0].response}
        assert [outcome.replayed for outcome in together] == [False] + [True] * 49
        assert later.replayed
        assert store.read_head().position == 2

    asyncio.run(scenario())


def test_a_request_id_with_another_payload_is_refused(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            await bench.submit(submit_counter(request_id="r"))
            with pytest.raises(RequestIdReused):
                await bench.submit(submit_counter(request_id="r", payload="other"))
        assert store.read_head().position == 1

    asyncio.run(scenario())


def test_the_request_id_is_looked_at_before_the_expected_version(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            first = await bench.submit(submit_counter(request_id="r", expected_version=0))
            again = await bench.submit(submit_counter(request_id="r", expected_version=0))
        assert again == Outcome(first.response, replayed=True)

    asyncio.run(scenario())


def test_the_outcome_of_a_no_op_is_stored_and_that_of_a_rejection_is_not(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            await bench.submit(submit_counter())
            no_op = submit_counter(request_id="no-op", decide=Decider(changes=False))
            first = await bench.submit(no_op)
            with pytest.raises(CounterIsFull):
                await bench.submit(submit_counter(request_id="rejected", decide=Decider(limit=1)))
            await bench.submit(submit_counter())
            again = await bench.submit(no_op)
            now_allowed = await bench.submit(submit_counter(request_id="rejected", decide=Decider(limit=5)))
        assert again == Outcome(first.response, replayed=True)
        assert parse(now_allowed) == (3, 3, 3)

    asyncio.run(scenario())


def test_a_head_that_another_process_moved_means_deciding_again_on_the_new_state(url: str) -> None:
    """Invariant 2, forced: two committers take turns on one log, each with the other's aggregate in its cache."""

    async def scenario() -> None:
        mine, theirs = SqlEventStore(url), SqlEventStore(url)
        async with running(mine) as me, running(theirs) as them:
            for turn in range(5):
                decide = Decider()
                assert parse(await me.submit(submit_counter(decide=decide))) == ((2 * turn + 1,) * 3)
                assert decide.seen[-1] == 2 * turn
                assert parse(await them.submit(submit_counter())) == ((2 * turn + 2,) * 3)
            with pytest.raises(VersionConflict) as conflict:
                await me.submit(submit_counter(expected_version=9))
            assert conflict.value.current_version == 10
        assert_one_gapless_chain(mine.read_log(1, 1000))
        mine.close()
        theirs.close()

    asyncio.run(scenario())


def test_two_committers_at_once_leave_no_gap_and_lose_no_command(url: str) -> None:
    async def scenario() -> None:
        mine, theirs = SqlEventStore(url), SqlEventStore(url)
        async with running(mine) as me, running(theirs) as them:
            await asyncio.gather(
                *(bench.submit(submit_counter(f"c-{number % 7}")) for number in range(400) for bench in (me, them))
            )
        log = mine.read_log(1, 1000)
        assert len(log) == 800
        assert_one_gapless_chain(log)
        mine.close()
        theirs.close()

    asyncio.run(scenario())


def test_a_commit_whose_reply_is_lost_is_looked_up_and_acknowledged_once(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        async with running(sql_store) as bench:
            with failpoints.arm("store.after_commit", failpoints.fail):
                with_events = await bench.submit(submit_counter(request_id="r"))
                no_op = await bench.submit(submit_counter(request_id="n", decide=Decider(changes=False)))
            assert parse(with_events) == parse(no_op) == (1, 1, 1)
            assert parse(await bench.submit(submit_counter())) == (2, 2, 2)
        assert_one_gapless_chain(sql_store.read_log(1, 100))

    asyncio.run(scenario())


def test_a_commit_that_failed_is_answered_with_unavailable_and_left_no_trace(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        async with running(sql_store) as bench:
            await bench.submit(submit_counter())
            with failpoints.arm("store.before_commit", failpoints.fail), pytest.raises(StoreUnavailable):
                await bench.submit(submit_counter(request_id="r"))
            again = await bench.submit(submit_counter(request_id="r"))
        assert bench.health[0] is None
        assert all(bench.health[1:-1])
        assert bench.health[-1] is None
        assert parse(again) == (2, 2, 2)
        assert not again.replayed

    asyncio.run(scenario())


def test_once_histories_differ_no_command_is_taken_not_even_one_that_waits(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with running(sql_store) as bench:
            with failpoints.arm("store.before_commit", gate):
                under_way = asyncio.create_task(bench.submit(submit_counter()))
                await wait_until(gate.reached)
                waiting = asyncio.create_task(bench.submit(submit_counter()))
                await asyncio.sleep(0.05)
                bench.committer.halt("the stream is of another log")
                gate.opened.set()
                assert parse(await under_way) == (1, 1, 1)
                with pytest.raises(LogHalted, match="another log"):
                    await waiting
            with pytest.raises(LogHalted):
                await bench.submit(submit_counter())
            bench.committer.halt("")
            assert parse(await bench.submit(submit_counter())) == (2, 2, 2)

    asyncio.run(scenario())


def test_of_a_refused_batch_nothing_takes_effect_behind_what_the_store_could_not_do(
    sql_store: SqlEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(sql_store) as bench:
            execute = bench.committer._appender.execute
            sizes: list[int] = []

            def failing(commands: Sequence[Command], plan: Plan | None, on_doubt: Callable[[], None]) -> Plan:
                sizes.append(len(commands))
                if len(sizes) == 1:
                    raise WriteRefused("one of the batch cannot be stored")
                if len(sizes) == 3:
                    raise StoreError("the store went away")
                return execute(commands, plan, on_doubt)

            monkeypatch.setattr(bench.committer._appender, "execute", failing)
            outcomes = await asyncio.gather(
                *(bench.submit(submit_counter(name)) for name in "abcd"), return_exceptions=True
            )
        assert sizes == [4, 1, 1]
        assert [type(outcome) for outcome in outcomes] == [Outcome, *[StoreUnavailable] * 3]
        assert [event.aggregate_id for event in sql_store.read_log(1, 10)] == ["a"]

    asyncio.run(scenario())


def test_a_store_that_failed_is_found_well_again_without_another_command(sql_store: SqlEventStore) -> None:
    """Else a server that is taken out of service by its health would stay out of it."""

    async def scenario() -> None:
        stop = StopSignal()
        async with running(sql_store) as bench:
            watching = asyncio.create_task(bench.committer.watch_store(stop))
            with failpoints.arm("store.before_commit", failpoints.fail), pytest.raises(StoreUnavailable):
                await bench.submit(submit_counter())
            failed = len(bench.health)
            await asyncio.sleep(1.5)
            assert [why is None for why in bench.health[failed - 1 :]] == [False, True]
            stop.set("the test is over")
            await watching

    asyncio.run(scenario())


def test_a_defect_after_the_commit_doubles_nothing(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        async with running(sql_store) as bench:
            with failpoints.arm("committer.before_answer", failpoints.fail):
                outcomes = await asyncio.gather(
                    *(bench.submit(submit_counter()) for _ in range(3)), return_exceptions=True
                )
            assert all(isinstance(outcome, failpoints.Triggered) for outcome in outcomes)
            assert parse(await bench.submit(submit_counter())) == (4, 4, 4)
        assert_one_gapless_chain(sql_store.read_log(1, 100))

    asyncio.run(scenario())


def test_an_aggregate_with_an_unknown_event_fails_its_own_commands_only(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        append(sql_store, [("from the future", 1)])
        async with running(sql_store) as bench:
            outcomes = await asyncio.gather(
                *(bench.submit(submit_counter(name)) for name in ("a", "from the future", "b")),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [Outcome, UnknownEvent, Outcome]
            assert len(bench.heads) == 1
        assert sql_store.read_head().position == 3

    asyncio.run(scenario())


def test_a_refused_request_is_let_go(store: EventStore) -> None:
    """An error keeps its traceback, and that its frames: a client with bad requests could fill the memory."""

    class Malformed(Submitted):
        def prepare(self) -> Sequence[Command | Exception]:
            local = self
            raise InvalidRequest([Violation("amount", f"of {local.size_bytes} bytes is too large")])

    async def scenario() -> None:
        gc.disable()
        try:
            async with running(store) as bench:
                malformed = Malformed(submit_counter().command)
                rejected = Decider(limit=0)
                of_malformed, of_rejected = weakref.ref(malformed), weakref.ref(rejected)
                with pytest.raises(InvalidRequest):
                    await bench.submit(malformed)
                with pytest.raises(CounterIsFull):
                    await bench.submit(submit_counter(decide=rejected))
                del malformed, rejected
                await bench.submit(submit_counter("another"))
            assert (of_malformed(), of_rejected()) == (None, None)
        finally:
            gc.enable()

    asyncio.run(scenario())


def test_a_cancelled_call_never_cancels_a_commit_and_is_dropped_if_it_was_not_decided(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with running(sql_store) as bench:
            with failpoints.arm("store.before_commit", gate):
                committing = asyncio.create_task(bench.submit(submit_counter("committing")))
                await wait_until(gate.reached)
                waiting = asyncio.create_task(bench.submit(submit_counter("waiting")))
                await asyncio.sleep(0)
                committing.cancel()
                waiting.cancel()
                await asyncio.wait([committing, waiting])
                gate.opened.set()
            await bench.submit(submit_counter("after"))
        assert [event.aggregate_id for event in sql_store.read_log(1, 10)] == ["committing", "after"]

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_what_waits_is_still_executed(sql_store: SqlEventStore) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with running(sql_store, CommitLimits(queued_commands=3)) as bench:
            with failpoints.arm("store.before_commit", gate):
                first = asyncio.create_task(bench.submit(submit_counter()))
                await wait_until(gate.reached)
                waiting = [asyncio.create_task(bench.submit(submit_counter())) for _ in range(3)]
                await asyncio.sleep(0)
                with pytest.raises(Overloaded):
                    await bench.submit(submit_counter())
                gate.opened.set()
            await asyncio.gather(first, *waiting)
        assert sql_store.read_head().position == 4

    asyncio.run(scenario())


def test_a_full_queue_is_bounded_in_bytes_too() -> None:
    async def scenario() -> None:
        async with running(MemoryEventStore(), CommitLimits(queued_bytes=150)) as bench:
            outcomes = await asyncio.gather(*(bench.submit(submit_counter()) for _ in range(4)), return_exceptions=True)
        assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False, False, True, True]

    asyncio.run(scenario())


def test_a_batch_is_bounded_in_commands() -> None:
    async def scenario() -> None:
        async with running(MemoryEventStore(), CommitLimits(batch_commands=10)) as bench:
            await asyncio.gather(*(bench.submit(submit_counter()) for _ in range(35)))
        assert bench.heads == [10, 20, 30, 35]

    asyncio.run(scenario())


def test_a_command_whose_deadline_has_passed_is_not_decided() -> None:
    async def scenario() -> None:
        async with running(MemoryEventStore()) as bench:
            decide = Decider()
            past = asyncio.get_running_loop().time() - 1
            with pytest.raises(DeadlinePassed):
                await bench.submit(submit_counter(decide=decide, deadline=past))
        assert decide.seen == []

    asyncio.run(scenario())


def test_closing_commits_what_waits_and_refuses_what_comes_later() -> None:
    async def scenario() -> None:
        store = MemoryEventStore()
        async with running(store) as bench:
            waiting = [asyncio.create_task(bench.submit(submit_counter())) for _ in range(5)]
            await asyncio.sleep(0)
            bench.committer.close()
            with pytest.raises(ShuttingDown):
                await bench.submit(submit_counter())
            await asyncio.gather(*waiting)
        assert store.read_head().position == 5

    asyncio.run(scenario())


def test_an_event_that_the_broker_could_not_carry_is_refused_and_its_neighbours_are_not(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store, max_event_bytes=10_000) as bench:
            outcomes = await asyncio.gather(
                bench.submit(submit_counter("a")),
                bench.submit(submit_counter("b", decide=Decider(payload="x" * 10_000))),
                bench.submit(submit_counter("c")),
                return_exceptions=True,
            )
        assert [type(outcome) for outcome in outcomes] == [Outcome, EventTooLarge, Outcome]
        assert_one_gapless_chain(store.read_log(1, 10))
        assert store.read_head().position == 2

    asyncio.run(scenario())


def test_an_id_belongs_to_one_type_of_aggregate(store: EventStore) -> None:
    async def scenario() -> None:
        async with running(store) as bench:
            await bench.submit(submit_counter("x"))
            with pytest.raises(AggregateIdTaken):
                await bench.submit(submit_counter("x", aggregate_type=OTHER))

    asyncio.run(scenario())


def test_a_malformed_request_is_answered_to_its_caller_alone(store: EventStore) -> None:
    class Malformed(Submitted):
        def prepare(self) -> Sequence[Command | Exception]:
            raise InvalidRequest([Violation("amount", "is required")])

    async def scenario() -> None:
        async with running(store) as bench:
            outcomes = await asyncio.gather(
                bench.submit(submit_counter()),
                bench.submit(Malformed(submit_counter().command)),
                bench.submit(submit_counter()),
                return_exceptions=True,
            )
        assert [type(outcome) for outcome in outcomes] == [Outcome, InvalidRequest, Outcome]
        assert store.read_head().position == 2

    asyncio.run(scenario())


def test_a_defect_in_one_decision_is_answered_to_its_caller_alone(store: EventStore) -> None:
    class Defect(Exception):
        pass

    class Broken(Decider):
        def __call__(self, *_: object) -> list[StringValue]:
            raise Defect

    async def scenario() -> None:
        async with running(store) as bench:
            outcomes = await asyncio.gather(
                bench.submit(submit_counter()),
                bench.submit(submit_counter(decide=Broken())),
                bench.submit(submit_counter()),
                return_exceptions=True,
            )
        assert [type(outcome) for outcome in outcomes] == [Outcome, Defect, Outcome]

    asyncio.run(scenario())
