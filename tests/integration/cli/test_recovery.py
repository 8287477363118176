"""`orderstream stream reset` and `orderstream log fork`: log, stream and read models that tell different histories."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import sqlalchemy as sa
from nats.aio.client import Client
from nats.js.api import StreamConfig
from prometheus_client import CollectorRegistry

from cli.exit_codes import ExitCode
from cli.supervisor.data_directory import DataDirectory
from cqrs.broker.connection import BrokerConnection, connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.errors import HistoryDiverged, UnsupportedBroker
from cqrs.head_line import format_head, parse_head
from cqrs.projection.tables import checkpoints, projections
from cqrs.records import EventRecord, LogHead
from cqrs.relay.metrics import RelayMetrics
from cqrs.relay.publish import publish_batch
from cqrs.relay.relay import Relay, RelayState, RelayTimes
from cqrs.relay.stream import EMPTY_TAIL, StreamSettings, ensure_stream
from cqrs.serving.stop import StopSignal
from cqrs.store.ownership import own_write_db
from cqrs.store.schema import events
from cqrs.store.sql import SqlEventStore
from cqrs.subjects import heartbeat_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat
from readmodel.schema import PROJECTIONS, READ_SCHEMA
from tests.integration.cli.installation import Outcome, orderstream
from tests.integration.cli.stored_logs import StoredLog, postgresql_log, sqlite_log
from tests.integration.command_server.rig import CommandServer, command_server
from tests.integration.postgresql import Databases

STREAM = StreamSettings("ORDERSTREAM", "orderstream", 1)


class Installation:
    """A data directory in which nothing runs."""

    def __init__(self, data: Path, log: StoredLog) -> None:
        self.data = data
        self.log = log
        DataDirectory(data).create()
        self.read_db_url = f"sqlite:///{data / 'read.db'}"
        engine = open_engine(self.read_db_url, access="write")
        upgrade_schema(engine, READ_SCHEMA)
        engine.dispose()

    def records(self) -> list[EventRecord]:
        engine = open_engine(self.log.url, access="read")
        try:
            with engine.connect() as connection:
                rows = connection.execute(sa.select(events).order_by(events.c.position))
                return [EventRecord._make(row) for row in rows]
        finally:
            engine.dispose()

    def with_broker(self, work: Callable[[Client], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with EmbeddedBroker(self.data / "jetstream") as broker:
                client = await connect_broker(broker.url, "test")
                try:
                    return await work(client)
                finally:
                    await client.close()

        return asyncio.run(run())

    def publish(self) -> None:
        """What the relay does: make the stream equal to the log as it is now."""
        head, records = self.log.head(), self.records()

        async def work(client: Client) -> None:
            await ensure_stream(client, STREAM, head.epoch)
            await publish_batch(client, STREAM, head.epoch, EMPTY_TAIL, records, 5)

        self.with_broker(work)

    def project(self, head: LogHead | None = None) -> None:
        """What the projector does, as far as checkpoints go."""
        at = head or self.log.head()
        engine = open_engine(self.read_db_url, access="write")
        with engine.begin() as connection:
            connection.execute(checkpoints.delete())
            connection.execute(projections.delete())
            for make in PROJECTIONS:
                name, version = make().name, make().code_version
                values = {"position": at.position, "hash": at.hash, "epoch": at.epoch, "record_time": at.record_time}
                connection.execute(
                    projections.insert().values(name=name, code_version=version, serving_generation=3, epoch=at.epoch)
                )
                connection.execute(checkpoints.insert().values(projection=name, generation=3, slot=0, **values))
        engine.dispose()

    def checkpoints(self) -> list[tuple[int, int]]:
        """Generation and position of each projection."""
        engine = open_engine(self.read_db_url, access="read")
        with engine.connect() as connection:
            found = connection.execute(sa.select(checkpoints.c.generation, checkpoints.c.position)).all()
        engine.dispose()
        return [(row.generation, row.position) for row in found]

    def run(self, *arguments: str) -> Outcome:
        if self.log.url.startswith("postgresql"):
            arguments = (*arguments, "--write-db-url", self.log.url)
        return orderstream(*arguments, "--data", str(self.data))

    def reset(self, *arguments: str) -> dict[str, Any]:
        done = self.run("stream", "reset", "--yes", "-o", "json", *arguments)
        assert done.returncode == ExitCode.OK, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def assert_one_history(self) -> None:
        """`orderstream verify` is all green, and the stream has the whole log."""
        done = self.run("verify", "-o", "json")
        assert done.returncode == ExitCode.OK, done.stdout + done.stderr
        (stream,) = [check for check in json.loads(done.stdout) if check["subject"] == "stream"]
        assert stream["examined"] == self.log.head().position


@pytest.fixture(params=["sqlite", "postgresql"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """A log of eight events, on each kind of database, with its stream and read models."""
    data = tmp_path / "data"
    data.mkdir()
    if request.param == "sqlite":
        log = sqlite_log(data)
    else:
        found: Databases = request.getfixturevalue("postgresql")
        log = postgresql_log(found)
    installation = Installation(data, log)
    installation.publish()
    installation.project()
    return installation


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Installation:
    data = tmp_path / "data"
    data.mkdir()
    installation = Installation(data, sqlite_log(data))
    installation.publish()
    installation.project()
    return installation


def standings(outcome: dict[str, Any]) -> dict[str, str]:
    return {finding["subject"]: finding["standing"] for finding in outcome["findings"]}


def test_where_nothing_differs_nothing_is_done(installed: Installation) -> None:
    before = installed.log.head()
    outcome = installed.reset()
    assert outcome["reset"] is False
    assert set(standings(outcome).values()) == {"same"}
    assert installed.checkpoints() == [(3, 8), (3, 8)]
    assert installed.log.head() == before


def test_a_log_set_back_without_a_word_gets_a_new_epoch_a_new_stream_and_new_read_models(
    installed: Installation,
) -> None:
    before = installed.log.head()
    installed.log.set_back(5)
    installed.log.append([("new", 1), ("new", 2)])  # as commands that came before anybody noticed
    outcome = installed.reset()
    assert standings(outcome) == {
        "stream ORDERSTREAM": "lost events",
        "projection orders": "lost events",
        "projection sales": "lost events",
    }
    (stream,) = [finding for finding in outcome["findings"] if finding["subject"].startswith("stream")]
    assert stream["shared_position"] == 5
    head = installed.log.head()
    assert head.epoch != before.epoch
    assert head.position == 7
    assert parse_head(outcome["head"]) == head
    assert installed.checkpoints() == [(4, 0), (4, 0)], "a generation that no projector has in hand"
    installed.assert_one_history()
    told = installed.run("log", "verify", "--head", format_head(before))
    assert told.returncode == ExitCode.REFUSED
    assert "its epoch was left at position 5, by a restore" in told.stderr
    assert installed.reset()["reset"] is False, "once is enough"


def test_after_a_restore_that_began_an_epoch_the_log_stays_as_it_is(installed: Installation) -> None:
    installed.log.set_back(5)
    installed.log.fork()
    head = installed.log.head()
    outcome = installed.reset()
    assert set(standings(outcome).values()) == {"left branch"}
    assert installed.log.head() == head
    installed.assert_one_history()


def test_a_dry_run_shows_what_differs_and_changes_nothing(installed: Installation) -> None:
    installed.log.set_back(5)
    head = installed.log.head()
    done = installed.run("stream", "reset", "--dry-run", "-o", "json")
    assert done.returncode == ExitCode.REFUSED
    assert "lost events" in done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["reset"] is False
    assert outcome["findings"][0]["text"].endswith("up to 5 they are the same: the log was set back")
    assert installed.log.head() == head
    assert installed.checkpoints() == [(3, 8), (3, 8)]
    assert installed.run("verify").returncode == ExitCode.REFUSED


def test_without_yes_and_without_a_terminal_nothing_is_changed(on_sqlite: Installation) -> None:
    on_sqlite.log.set_back(5)
    head = on_sqlite.log.head()
    done = on_sqlite.run("stream", "reset")
    assert done.returncode == ExitCode.REFUSED
    assert "nothing was changed" in done.stderr
    assert "--yes" in done.stderr
    assert on_sqlite.log.head() == head


def test_the_stream_of_another_log_is_only_deleted_by_force(on_sqlite: Installation) -> None:
    (on_sqlite.data / "write.db").unlink()
    sqlite_log(on_sqlite.data)  # a new log in the place of the one that the stream is of
    done = on_sqlite.run("stream", "reset", "--yes")
    assert done.returncode == ExitCode.CONFLICT
    assert "of another log" in done.stderr
    assert "may be the only copy" in done.stderr
    assert "--stream" in done.stderr
    assert on_sqlite.checkpoints() == [(3, 8), (3, 8)]
    outcome = on_sqlite.reset("--force")
    assert set(standings(outcome).values()) == {"another log"}
    on_sqlite.assert_one_history()


def test_a_stream_whose_log_is_alive_is_not_even_deleted_by_force(on_sqlite: Installation) -> None:
    (on_sqlite.data / "write.db").unlink()
    sqlite_log(on_sqlite.data)

    async def scenario() -> Outcome:
        async with EmbeddedBroker(on_sqlite.data / "jetstream") as broker:
            client = await connect_broker(broker.url, "relay of the other log")
            resetting = asyncio.create_task(
                asyncio.to_thread(
                    orderstream, "stream", "reset", "--yes", "--force",
                    "--data", str(on_sqlite.data), "--nats-url", broker.url,
                )
            )  # fmt: skip
            heartbeat = LogHeartbeat(epoch="00000000-0000-4000-8000-000000000000", position=8)
            while not resetting.done():
                await client.publish(heartbeat_subject("orderstream"), heartbeat.SerializeToString())
                await asyncio.sleep(0.2)
            assert (await client.jetstream().stream_info("ORDERSTREAM")).state.last_seq == 8
            await client.close()
            return await resetting

    done = asyncio.run(scenario())
    assert done.returncode == ExitCode.IN_USE
    assert "two logs on one stream" in done.stderr
    assert "--subject-prefix" in done.stderr


def test_a_log_that_is_not_right_in_itself_is_not_made_the_only_copy(on_sqlite: Installation) -> None:
    on_sqlite.log.fork()
    on_sqlite.log.tamper("UPDATE events SET data = x'79' WHERE position = 4")
    done = on_sqlite.run("stream", "reset", "--yes")
    assert done.returncode == ExitCode.REFUSED
    assert "the log itself is not right: position 4" in done.stderr
    assert "may be the only other copy" in " ".join(done.stderr.split())

    async def size(client: Client) -> int:
        return int((await client.jetstream().stream_info("ORDERSTREAM")).state.last_seq)

    assert on_sqlite.with_broker(size) == 8


def test_on_sqlite_a_log_cannot_begin_an_epoch_beside_a_command_server(on_sqlite: Installation) -> None:
    on_sqlite.log.set_back(5)
    head = on_sqlite.log.head()
    with own_write_db(on_sqlite.log.url):
        for command in (("stream", "reset"), ("log", "fork")):
            done = on_sqlite.run(*command, "--yes")
            assert done.returncode == ExitCode.CONFIG
            assert "stop it first" in done.stderr
    assert on_sqlite.log.head() == head
    on_sqlite.reset()
    on_sqlite.assert_one_history()


def test_a_stream_that_could_lose_messages_is_made_anew_and_good_read_models_stay(on_sqlite: Installation) -> None:
    head, records = on_sqlite.log.head(), on_sqlite.records()

    async def make_it_wrong(client: Client) -> None:
        jetstream = client.jetstream()
        await jetstream.delete_stream("ORDERSTREAM")
        await jetstream.add_stream(
            StreamConfig(
                name="ORDERSTREAM",
                subjects=["orderstream.log.>"],
                allow_atomic=True,
                metadata={"orderstream.epoch": head.epoch},
            )
        )
        await publish_batch(client, STREAM, head.epoch, EMPTY_TAIL, records, 5)

    on_sqlite.with_broker(make_it_wrong)
    outcome = on_sqlite.reset()
    assert standings(outcome)["stream ORDERSTREAM"] == "unusable"
    assert "messages may be deleted" in outcome["findings"][0]["text"]
    assert on_sqlite.checkpoints() == [(3, 8), (3, 8)]

    async def look(client: Client) -> bool | None:
        return (await client.jetstream().stream_info("ORDERSTREAM")).config.deny_delete

    assert on_sqlite.with_broker(look) is True


def test_a_reset_that_was_broken_off_behind_the_stream_is_finished_by_the_next(on_sqlite: Installation) -> None:
    on_sqlite.log.set_back(5)
    on_sqlite.log.fork()

    async def delete(client: Client) -> None:
        await client.jetstream().delete_stream("ORDERSTREAM")

    on_sqlite.with_broker(delete)
    on_sqlite.publish()
    outcome = on_sqlite.reset()
    assert standings(outcome)["stream ORDERSTREAM"] == "same"
    assert standings(outcome)["projection orders"] == "left branch"
    on_sqlite.assert_one_history()


def test_the_stream_is_filled_beside_a_relay_that_fills_it_too(on_sqlite: Installation) -> None:
    for number in range(5):
        on_sqlite.log.append([(f"bulk-{number}-{each}", 1) for each in range(1000)])
    on_sqlite.log.fork()

    async def scenario() -> None:
        stop, store = StopSignal(), SqlEventStore(on_sqlite.log.url)
        async with EmbeddedBroker(on_sqlite.data / "jetstream") as broker:
            connection = BrokerConnection(broker.url, "relay")
            halted = asyncio.Event()
            relay = Relay(
                store,
                connection,
                STREAM,
                RelayMetrics(CollectorRegistry()),
                max_event_bytes=100_000,
                on_state=lambda state, _error: halted.set() if state is RelayState.HALTED else None,
                times=RelayTimes(check=0.2),
            )
            tasks = [
                asyncio.create_task(connection.run(stop)),
                asyncio.create_task(relay.run()),
                asyncio.create_task(relay.run_heartbeat()),
            ]
            await asyncio.wait_for(halted.wait(), 20)
            arguments = ("stream", "reset", "--yes", "--data", str(on_sqlite.data), "--nats-url", broker.url)
            done = await asyncio.to_thread(orderstream, *arguments)
            assert done.returncode == ExitCode.OK, done.stderr
            client = await connect_broker(broker.url, "reader")
            info = await client.jetstream().stream_info("ORDERSTREAM")
            assert info.state.last_seq == info.state.messages == 5008
            await client.close()
            relay.stop()
            await asyncio.gather(*tasks[1:])
            stop.set("over")
            await connection.close()
            await tasks[0]
            relay.release()
        store.close()

    asyncio.run(scenario())
    on_sqlite.assert_one_history()


def test_a_fork_is_found_where_the_stream_parts_from_the_log(installed: Installation) -> None:
    """As after a point-in-time recovery, with commands since."""
    before = installed.log.head()
    installed.log.set_back(3)
    installed.log.append([(f"new-{number}", 1) for number in range(9)])
    done = installed.run("log", "fork", "--yes")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "began at position 3" in done.stderr
    assert "orderstream stream reset" in done.stderr
    head = installed.log.head()
    assert parse_head(done.stdout) == head
    assert head.epoch != before.epoch
    installed.reset()
    installed.assert_one_history()


def test_a_fork_without_a_loss_is_refused_unless_it_is_forced(installed: Installation) -> None:
    before = installed.log.head()
    done = installed.run("log", "fork", "--yes")
    assert done.returncode == ExitCode.CONFLICT
    assert "nothing shows that the log was set back" in done.stderr
    assert "--force" in done.stderr
    assert installed.log.head() == before
    forced = installed.run("log", "fork", "--yes", "--force")
    assert forced.returncode == ExitCode.OK
    assert "began at position 8" in forced.stderr
    assert installed.log.head().epoch != before.epoch


def test_a_loss_that_only_a_kept_head_shows_is_enough_for_a_fork(installed: Installation) -> None:
    kept = [installed.log.head()]
    installed.log.append([("d", 1), ("d", 2)])
    kept.append(installed.log.head())
    installed.log.set_back(9)
    lines = installed.data / "heads.txt"
    lines.write_text("".join(format_head(head) + "\n" for head in kept))
    done = installed.run("log", "fork", "--yes", "--head-file", str(lines))
    assert done.returncode == ExitCode.OK, done.stderr
    assert "began at position 8" in done.stderr, "up to there the log is known to be what it was"


def test_a_fork_cannot_begin_where_log_and_stream_are_still_the_same_or_the_log_has_ended(
    installed: Installation,
) -> None:
    installed.log.set_back(5)
    beyond = installed.run("log", "fork", "--yes", "--at", "6")
    assert beyond.returncode == ExitCode.CONFLICT
    assert installed.run("log", "fork", "--yes", "--force", "--at", "4").returncode == ExitCode.OK
    again = installed.run("log", "fork", "--yes", "--force", "--at", "3")
    assert again.returncode == ExitCode.CONFLICT
    assert "no other can begin before" in again.stderr


def test_without_a_broker_a_fork_goes_by_what_else_there_is(on_sqlite: Installation) -> None:
    on_sqlite.log.set_back(5)
    done = on_sqlite.run("log", "fork", "--yes", "--nats-url", "nats://127.0.0.1:1")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "the stream could not be looked at" in done.stderr
    assert "began at position 0" in done.stderr, "the read models show a loss, and nothing what is shared"


def test_without_a_broker_a_reset_says_so(on_sqlite: Installation) -> None:
    done = on_sqlite.run("stream", "reset", "--yes", "--nats-url", "nats://127.0.0.1:1")
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "no broker at nats://127.0.0.1:1" in done.stderr


def test_a_second_log_with_the_same_subjects_halts_its_relay_and_says_what_to_change(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(tmp_path) as broker:
            client = await connect_broker(broker.url, "relay")
            await ensure_stream(client, STREAM, "11111111-1111-4111-8111-111111111111")
            with pytest.raises(UnsupportedBroker, match=r"two subject prefixes: correct --stream or --subject-prefix"):
                await ensure_stream(client, StreamSettings("OTHER", "orderstream", 1), "other epoch")
            with pytest.raises(HistoryDiverged, match="orderstream stream reset"):
                await ensure_stream(client, STREAM, "other epoch")
            with pytest.raises(HistoryDiverged, match="orderstream stream reset"):
                await ensure_stream(client, StreamSettings("ORDERSTREAM", "other", 1), "other epoch")
            await client.close()

    asyncio.run(scenario())


def test_a_database_set_back_beside_its_server_is_forked_and_reset_while_that_runs(
    tmp_path: Path, postgresql: Databases
) -> None:
    """On PostgreSQL, as after a fail-over to a standby that lagged behind."""
    log = postgresql_log(postgresql, [("x", 1)])
    installed = Installation(tmp_path / "data", log)

    async def scenario() -> None:
        async with EmbeddedBroker(installed.data / "jetstream") as broker:
            targets = ("--write-db-url", log.url, "--nats-url", broker.url, "--data", str(installed.data), "--yes")
            async with command_server(installed.data, nats_url=broker.url, write_db_url=log.url) as server:
                for number in range(5):
                    await server.register(f"c-{number}")
                await server.until("orderstream_relay_position", 6)
                log.set_back(4)
                with pytest.raises(grpc.aio.AioRpcError, match=r"LOG_HALTED: .*`orderstream log fork`"):
                    await server.register("c-9")
                forked = await asyncio.to_thread(orderstream, "log", "fork", *targets)
                assert forked.returncode == ExitCode.OK, forked.stderr
                assert "began at position 4" in forked.stderr
                done = await asyncio.to_thread(orderstream, "stream", "reset", *targets)
                assert done.returncode == ExitCode.OK, done.stderr
                await _eventually_register(server, "c-10")
                await server.until("orderstream_relay_position", 5)
                client = await connect_broker(broker.url, "reader")
                info = await client.jetstream().stream_info("ORDERSTREAM")
                assert info.config.metadata is not None
                assert info.config.metadata["orderstream.epoch"] == log.head().epoch
                assert info.state.last_seq == log.head().position == 5
                await client.close()

    asyncio.run(scenario())


async def _eventually_register(server: CommandServer, customer: str) -> None:
    """The server looks every few seconds whether it is mended."""
    async with asyncio.timeout(30):
        while True:
            try:
                await server.register(customer)
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
