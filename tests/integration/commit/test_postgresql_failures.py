"""Invariants 1 to 4 and 6 when a real PostgreSQL fails: answered with the truth, and never a second effect."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from cqrs import failpoints
from cqrs.commit.command import Outcome
from cqrs.database import postgresql as settings
from cqrs.database.bounded import BoundedConnection
from cqrs.database.engine import open_engine
from cqrs.errors import LogHalted, StoreUnavailable
from cqrs.serving.stop import StopSignal
from cqrs.store import sql as store_module
from cqrs.store.epochs import begin_epoch
from cqrs.store.port import EventStore, WriteRefused
from cqrs.store.sql import SqlEventStore
from tests.integration.commit.counters import Bench, Decider, Process, raise_counter, running, submit_counter
from tests.integration.commit.test_committer import parse
from tests.integration.logs import assert_one_gapless_chain
from tests.integration.postgresql import Databases, PostgresServer, postgresql_server, text_of
from tests.integration.tcp_proxy import Loss, TcpProxy, tcp_proxy


@pytest.fixture
def url(postgresql_write_db: str) -> URL:
    return make_url(postgresql_write_db)


OpenStore = Callable[[URL], SqlEventStore]


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    opened: list[SqlEventStore] = []

    def open_another(url: URL) -> SqlEventStore:
        opened.append(SqlEventStore(text_of(url)))
        return opened[-1]

    yield open_another
    for store in opened:
        store.close()


@pytest.fixture
def store(url: URL, open_store: OpenStore) -> SqlEventStore:
    return open_store(url)


@pytest.fixture
def proxy(url: URL) -> Iterator[TcpProxy]:
    with tcp_proxy(str(url.host), int(url.port or 5432)) as opened:
        yield opened


@pytest.fixture
def store_behind_proxy(url: URL, proxy: TcpProxy, open_store: OpenStore) -> SqlEventStore:
    return open_store(url.set(port=proxy.port))


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def own_url(own_server: PostgresServer) -> URL:
    return Databases(own_server.url).with_schema()


def execute(url: URL, *statements: str) -> None:
    """As the owner, beside all of it."""
    with psycopg.connect(text_of(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement))


def rival(store: EventStore) -> None:
    """What another process commits."""
    Process(store).execute(raise_counter("rival", request_id="rival"))


class Once:
    """A failpoint's action that is done the first time only."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.done = False
        self._action = action

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self._action()


class Pause:
    """A failpoint's action that waits until it is over."""

    def __init__(self) -> None:
        self.reached, self.over = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.over.wait(20)


def request_ids(store: EventStore) -> list[str | None]:
    log = store.read_log(1, 1000)
    assert_one_gapless_chain(log)
    return [event.request_id for event in log]


def scenario(store: SqlEventStore, work: Callable[[Bench], object]) -> None:
    """Run `work`, a coroutine function, with a committer on `store`."""

    async def body() -> None:
        async with running(store) as bench:
            await work(bench)  # type: ignore[misc] # it is awaitable

    asyncio.run(body())


async def submit(bench: Bench, request_id: str) -> Outcome:
    return await bench.submit(submit_counter(request_id=request_id))


# The server goes away.


def test_a_server_that_was_restarted_between_two_commands_is_not_noticed_by_clients(
    own_server: PostgresServer, own_url: URL, open_store: OpenStore
) -> None:
    store = open_store(own_url)

    async def work(bench: Bench) -> None:
        for turn, crash in enumerate((False, True)):
            assert parse(await submit(bench, f"before-{turn}"))[0] == 2 * turn + 1
            own_server.stop(crash=crash)
            own_server.start()
            assert parse(await submit(bench, f"after-{turn}"))[0] == 2 * turn + 2
        assert bench.health == [None] * 4, "no client is sent away for that"

    scenario(store, work)
    assert request_ids(store) == ["before-0", "after-0", "before-1", "after-1"]


def test_a_server_that_is_restarted_in_the_middle_of_a_batch_leaves_each_command_with_one_effect(
    own_server: PostgresServer, own_url: URL, open_store: OpenStore
) -> None:
    store = open_store(own_url)

    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        for place in ("store.before_commit", "store.after_commit"):
            pause = Pause()
            with failpoints.arm(place, Once(pause)):
                together = asyncio.gather(*(submit(bench, f"{place}-{number}") for number in range(20)))
                assert await asyncio.to_thread(pause.reached.wait, 10)
                own_server.stop(crash=True)
                own_server.start()  # on this thread: it would end with the committer's
                pause.over.set()
                assert not any(outcome.replayed for outcome in await together)

    scenario(store, work)
    found = request_ids(open_store(own_url))
    assert len(found) == len(set(found)) == 41


def test_while_the_server_is_away_commands_are_refused_and_their_retry_takes_effect_once(
    own_server: PostgresServer, own_url: URL, open_store: OpenStore
) -> None:
    store = open_store(own_url)

    async def work(bench: Bench) -> None:
        await submit(bench, "before")
        own_server.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="nothing was done: retry"):
                await submit(bench, "meanwhile")
        assert "Connection refused" in (bench.health[-1] or "")
        own_server.start()
        stop = StopSignal()
        watching = asyncio.create_task(bench.committer.watch_store(stop))
        await asyncio.sleep(1.5)
        assert bench.health[-1] is None
        stop.set("it is well again")
        await watching
        assert not (await submit(bench, "meanwhile")).replayed
        assert (await submit(bench, "meanwhile")).replayed

    scenario(store, work)
    assert request_ids(store) == ["before", "meanwhile"]


# A COMMIT is not answered.


def test_a_commit_whose_reply_is_lost_is_found_committed_and_acknowledged(
    store_behind_proxy: SqlEventStore, proxy: TcpProxy
) -> None:
    async def work(bench: Bench) -> None:
        first = await submit(bench, "first")
        proxy.lose_next_commit(Loss.REPLY)
        together = await asyncio.gather(*(submit(bench, f"lost-{number}") for number in range(10)))
        assert [outcome.replayed for outcome in together] == [False] * 10
        assert bench.health[1:] == ["a COMMIT has not been answered", None]
        assert await submit(bench, "first") == first._replace(replayed=True)
        assert await submit(bench, "lost-3") == together[3]._replace(replayed=True)

    scenario(store_behind_proxy, work)
    assert request_ids(store_behind_proxy) == ["first", *(f"lost-{number}" for number in range(10))]


def test_a_commit_that_never_reached_the_server_is_found_missing_and_done_again(
    store_behind_proxy: SqlEventStore, proxy: TcpProxy
) -> None:
    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        proxy.lose_next_commit(Loss.REQUEST)
        assert parse(await submit(bench, "lost")) == (2, 2, 2)
        proxy.lose_next_commit(Loss.REQUEST)
        no_op = submit_counter(request_id="no-op", decide=Decider(changes=False))
        assert parse(await bench.submit(no_op)) == (2, 2, 2)
        assert (await bench.submit(no_op)).replayed

    scenario(store_behind_proxy, work)
    assert request_ids(store_behind_proxy) == ["first", "lost"]


@pytest.mark.parametrize("loss", Loss)
def test_an_unanswered_commit_is_told_from_a_rivals_at_the_same_position(
    store_behind_proxy: SqlEventStore, store: SqlEventStore, proxy: TcpProxy, loss: Loss
) -> None:
    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        proxy.lose_next_commit(loss, lambda: rival(store))
        assert parse(await submit(bench, "lost"))[:2] == (2, 2)

    scenario(store_behind_proxy, work)
    expected = ["first", "lost", "rival"] if loss is Loss.REPLY else ["first", "rival", "lost"]
    assert request_ids(store) == expected


def test_a_commit_of_which_nothing_can_be_found_out_is_answered_so_and_its_retry_is_told_the_truth(
    own_server: PostgresServer, own_url: URL, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrs.commit.appender._RESOLVE_PAUSE_SECONDS", 0.01)
    with tcp_proxy("127.0.0.1", own_server.port) as proxy:
        store = open_store(own_url.set(port=proxy.port))

        async def work(bench: Bench) -> None:
            await submit(bench, "first")
            proxy.lose_next_commit(Loss.REPLY, own_server.stop)
            with pytest.raises(StoreUnavailable, match="outcome is unknown: repeat the command with its request id"):
                await submit(bench, "lost")
            own_server.start()
            again = await submit(bench, "lost")
            assert again.replayed
            assert parse(again) == (2, 2, 2)

        scenario(store, work)
        assert request_ids(store) == ["first", "lost"]


# It takes too long.


def test_a_head_that_another_holds_for_too_long_is_unavailable_and_what_waits_is_not_lost(
    url: URL, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "open_engine", partial(open_engine, busy_timeout_seconds=0.2))
    store, rival = open_store(url), open_store(url)

    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        with rival.begin_append(), pytest.raises(StoreUnavailable, match="nothing was done"):
            await submit(bench, "refused")
        assert "try again" in (bench.health[-1] or "")
        transaction = rival.begin_append()
        transaction.__enter__()
        waiting = asyncio.create_task(submit(bench, "waiting"))
        await asyncio.sleep(0.3)  # longer than one attempt waits
        transaction.__exit__(None, None, None)
        await waiting

    scenario(store, work)
    assert request_ids(store) == ["first", "waiting"]


def test_a_statement_that_takes_too_long_is_given_up_and_leaves_nothing(
    url: URL, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "STATEMENT_SECONDS", 1)
    store = open_store(url)
    execute(
        url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN NEW; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON command_results FOR EACH ROW EXECUTE FUNCTION slow()",
    )

    async def work(bench: Bench) -> None:
        with pytest.raises(StoreUnavailable):
            await submit(bench, "r")
        assert "statement timeout" in (bench.health[-1] or "")
        execute(url, "DROP TRIGGER slow ON command_results")
        assert parse(await submit(bench, "r")) == (1, 1, 1)

    scenario(store, work)
    assert request_ids(store) == ["r"]


def test_a_process_that_freezes_with_the_head_in_its_hands_loses_it_and_doubles_nothing_when_it_wakes(
    url: URL, store: SqlEventStore, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "IDLE_IN_TRANSACTION_SECONDS", 1)
    frozen = open_store(url)
    freeze = Pause()

    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        with failpoints.arm("store.before_commit", Once(freeze)):
            waking = asyncio.create_task(submit(bench, "frozen"))
            assert await asyncio.to_thread(freeze.reached.wait, 10)
            # Waits for the head until PostgreSQL has taken it away from the frozen one.
            await asyncio.to_thread(rival, store)
            freeze.over.set()
            assert parse(await waking) == (2, 2, 3)

    scenario(frozen, work)
    assert request_ids(store) == ["first", "rival", "frozen"]


def test_a_server_that_is_frozen_is_given_up_and_does_not_double_when_it_goes_on(
    url: URL, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedConnection, "answer_seconds", 1.5)
    store = open_store(url)

    async def work(bench: Bench) -> None:
        await submit(bench, "first")
        assert store._writer is not None
        backend = store._writer.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        store._writer.rollback()
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                await submit(bench, "r")
            assert "has not answered for 1.5 s" in (bench.health[-1] or "")
            # Another connection, which the frozen one does not hold up: it had not got to the lock.
            assert parse(await submit(bench, "r")) == (2, 2, 2)
        finally:
            os.kill(backend, signal.SIGCONT)
        await asyncio.sleep(0.2)
        assert parse(await submit(bench, "after")) == (3, 3, 3)

    scenario(store, work)
    assert request_ids(store) == ["first", "r", "after"]


# It refuses.


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_transaction_that_must_be_repeated_is_repeated_and_nobody_is_told(
    url: URL, store: SqlEventStore, code: str
) -> None:
    execute(
        url,
        "CREATE SEQUENCE attempts",  # which no rollback takes back
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('attempts') <= 2 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '{code}'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    )

    async def work(bench: Bench) -> None:
        outcomes = await asyncio.gather(*(submit(bench, f"r-{number}") for number in range(5)))
        assert not any(outcome.replayed for outcome in outcomes)

    scenario(store, work)
    assert request_ids(store) == [f"r-{number}" for number in range(5)]


def test_of_a_batch_that_is_refused_only_the_command_to_blame_suffers(url: URL, store: SqlEventStore) -> None:
    execute(url, "ALTER TABLE events ADD CONSTRAINT good CHECK (aggregate_id <> 'bad')")

    async def work(bench: Bench) -> None:
        outcomes = await asyncio.gather(
            *(bench.submit(submit_counter(name, request_id=name)) for name in ("a", "bad", "nul\0", "b")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Outcome, WriteRefused, WriteRefused, Outcome]
        await submit(bench, "later")

    scenario(store, work)
    assert request_ids(store) == ["a", "b", "later"]


# It is not what it was.


def test_after_a_fail_over_that_lost_events_commands_are_refused_until_an_operator_has_recorded_it(
    postgresql: Databases, url: URL, open_store: OpenStore
) -> None:
    store = open_store(url)

    async def work(bench: Bench) -> None:
        await submit(bench, "kept")
        older = postgresql.copy(url)
        await submit(bench, "lost")
        postgresql.replace(url, older)
        for _ in range(2):
            with pytest.raises(LogHalted, match=r"ends at position 1 and has no event at position 2.*log fork"):
                await submit(bench, "next")
        assert store.read_head().position == 1
        engine = open_engine(text_of(url), access="write")
        with engine.begin() as connection:
            new = begin_epoch(connection)
        engine.dispose()
        assert new.fork_position == 1
        stop = StopSignal()
        watching = asyncio.create_task(bench.committer.watch_store(stop))
        await asyncio.sleep(1.2)
        assert bench.health[-1] is None, "back in service without a command"
        stop.set("it is well again")
        await watching
        # What was lost with its outcome is executed anew: nobody can know better.
        assert [parse(await submit(bench, name))[2] for name in ("next", "lost")] == [2, 3]

    scenario(store, work)
    assert request_ids(store) == ["kept", "next", "lost"]


def test_a_fail_over_that_lost_nothing_is_not_noticed(postgresql: Databases, url: URL, open_store: OpenStore) -> None:
    store = open_store(url)

    async def work(bench: Bench) -> None:
        await submit(bench, "before")
        postgresql.replace(url, postgresql.copy(url))
        assert parse(await submit(bench, "after")) == (2, 2, 2)

    scenario(store, work)
    assert request_ids(store) == ["before", "after"]


def test_connections_that_break_at_any_moment_leave_each_command_with_one_effect(
    store_behind_proxy: SqlEventStore, proxy: TcpProxy, store: SqlEventStore
) -> None:
    async def insist(bench: Bench, number: int) -> None:
        for _ in range(100):
            with suppress(StoreUnavailable):
                await bench.submit(submit_counter(f"c-{number % 7}", request_id=f"r-{number}"))
                return
        raise AssertionError("not within 100 attempts")

    async def work(bench: Bench) -> None:
        for start in range(0, 400, 20):
            cutting = asyncio.get_running_loop().call_later(start % 7 / 1000, proxy.cut)
            await asyncio.gather(*(insist(bench, number) for number in range(start, start + 20)))
            cutting.cancel()

    scenario(store_behind_proxy, work)
    found = request_ids(store)
    assert sorted(map(str, found)) == sorted(f"r-{number}" for number in range(400))
