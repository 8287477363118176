"""Subscriptions to a real command server: killed, slow, many, and the server killed under them."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from cqrs.store.sql import SqlEventStore
from orderstream.events.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from orderstream_client.errors import decode_error
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.command_server.subscriber import whole_lines
from tests.integration.events.writing import LogWriter
from tests.integration.postgresql import Databases, postgresql_server, text_of

KILLS = 100


def received(file: Path) -> list[str]:
    """ "POSITION=EVENT ID" of everything that a subscriber has received, in order."""
    return [event for line in whole_lines(file) for event in line.split(" ")[1:]]


async def start_subscriber(server: CommandServer, file: Path, until: int = 0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.command_server.subscriber"),
        *(server.address, str(file), str(until), str(os.getpid())),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=asyncio.subprocess.DEVNULL,
    )


async def order_without_end(server: CommandServer, name: str) -> None:
    """Orders, one after the other, until the server is gone."""
    number = 0
    while True:
        number += 1
        try:
            await server.orders.CreateOrder(order(f"{name}-{number}"), timeout=20)
        except grpc.aio.AioRpcError:
            return
        await asyncio.sleep(0.002)


async def kill(server: CommandServer) -> None:
    if server.process.returncode is None:
        server.process.kill()
        await server.process.wait()


@asynccontextmanager
async def busy_server(folder: Path, life: int) -> AsyncIterator[CommandServer]:
    """A command server that takes orders all the time, and is killed in the end."""
    async with command_server(folder) as server:
        if life == 0:
            await server.register()
        ordering = [asyncio.create_task(order_without_end(server, f"o-{life}-{each}")) for each in range(4)]
        try:
            yield server
        finally:
            await kill(server)
            await asyncio.gather(*ordering)


async def grown(file: Path, than: int, process: asyncio.subprocess.Process) -> None:
    """Wait until a subscriber has written more, or has ended."""
    deadline = time.monotonic() + 20
    while not (file.exists() and file.stat().st_size > than) and process.returncode is None:
        assert time.monotonic() < deadline, "a subscriber receives nothing"
        await asyncio.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_subscriber_killed_and_resumed_100_times_at_random_sees_every_position_once_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        rng = random.Random(6)
        file = tmp_path / "received"
        kills = 0
        for life in range(4):  # of the server, which is killed and started again as well
            async with busy_server(tmp_path, life) as server:
                last_of_life = (life + 1) * KILLS // 4
                while kills < last_of_life:
                    size = file.stat().st_size if file.exists() else 0
                    subscriber = await start_subscriber(server, file)
                    if kills % 5:
                        await grown(file, size, subscriber)
                        await asyncio.sleep(rng.random() * 0.1)
                    else:  # at any moment, also before it has begun
                        await asyncio.sleep(rng.random() * 0.3)
                    kills += 1
                    if kills == last_of_life and life % 2:
                        await kill(server)
                    else:
                        subscriber.kill()
                    await subscriber.wait()
        async with command_server(tmp_path) as server:
            log = await server.read_log()
            subscriber = await start_subscriber(server, file, until=len(log))
            assert await asyncio.wait_for(subscriber.wait(), 60) == 0
            assert received(file) == [f"{event.position}={event.event_id}" for event in log]
            assert len(log) > 500

    run(scenario)


def memory_of_workers(server: CommandServer) -> int:
    """Bytes of memory of their own that the server's worker processes have, together."""
    total = 0
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for child in children:
        lines = Path(f"/proc/{child}/status").read_text().splitlines()
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return total


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_subscribers_that_do_not_read_cost_no_memory_for_what_they_have_not_read(tmp_path: Path) -> None:
    events, data, idle = 50_000, b"x" * 2_000, 10

    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            # A channel each: connections share nothing, flow control least of all.
            channels = [grpc.aio.insecure_channel(server.address) for _ in range(idle)]
            stuck = [
                channel.unary_stream(
                    "/orderstream.events.v1.EventService/Subscribe",
                    SubscribeRequest.SerializeToString,
                    SubscribeResponse.FromString,
                )(SubscribeRequest())
                for channel in channels
            ]
            following = server.events.Subscribe(SubscribeRequest())
            for call in (following, *stuck):
                await call.read()
            writing = SqlEventStore(f"sqlite:///{tmp_path / 'write.db'}")
            log = LogWriter(writing)
            position, before = 0, 0
            for written in range(1_000, events + 1, 1_000):
                await asyncio.to_thread(log.write_many, 1_000, data)
                while position < written:  # what others wait for passes through the server
                    position = (await following.read()).position
                before = before or memory_of_workers(server)
            grown_by = memory_of_workers(server) - before
            assert await server.metric('orderstream_tail_bytes{worker="0"}') <= 16 * 1024 * 1024
            assert await server.metric('orderstream_subscribers{worker="0"}') == idle + 1
            # 100 MB have passed. The tail takes 16 MiB, a stuck subscriber a page of 1 MB and what gRPC holds of it.
            assert grown_by < 64 * 1024 * 1024, f"grown by {grown_by:,} bytes"
            seen: list[int] = []
            while len(seen) < events:
                answer = await stuck[0].read()
                assert isinstance(answer, SubscribeResponse)
                seen += [event.position for event in answer.events]
            assert seen == list(range(1, events + 1))
            for call in (following, *stuck):
                call.cancel()
            for channel in channels:
                await channel.close()
            writing.close()

    run(scenario)


def test_a_stop_ends_subscriptions_with_a_reason_and_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, drain_seconds="60") as server:
            await server.register()
            call = server.events.Subscribe(SubscribeRequest())
            first = await call.read()
            assert (first.position, first.caught_up) == (1, True)
            server.process.terminate()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
            assert decode_error(ended.value).reason == "SHUTTING_DOWN"
            assert await asyncio.wait_for(server.process.wait(), 30) == 0
        async with command_server(tmp_path) as server:
            await server.orders.CreateOrder(order("o-1"))
            call = server.events.Subscribe(SubscribeRequest(resume_token=first.resume_token))
            assert [event.aggregate_id for event in (await call.read()).events] == ["o-1"]
            call.cancel()

    run(scenario)


def test_a_subscriber_that_reads_nothing_cannot_keep_a_server_from_stopping(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, drain_seconds="1") as server:
            writing = SqlEventStore(f"sqlite:///{tmp_path / 'write.db'}")
            LogWriter(writing).write_many(20_000, b"x" * 2_000)
            writing.close()
            stuck = server.events.Subscribe(SubscribeRequest())
            await stuck.read()
            server.process.terminate()
            assert await asyncio.wait_for(server.process.wait(), 30) == 0

    run(scenario)


def test_the_limits_and_malformed_requests_are_answered_with_their_reasons(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, max_subscribers="1") as server:

            async def reason_of(request: SubscribeRequest) -> str:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await server.events.Subscribe(request).read()
                return decode_error(refused.value).reason

            assert await reason_of(SubscribeRequest(resume_token="of another world")) == "INVALID_REQUEST"
            assert await reason_of(SubscribeRequest(max_events=1_001)) == "INVALID_REQUEST"
            first = server.events.Subscribe(SubscribeRequest())
            await first.read()
            assert await reason_of(SubscribeRequest()) == "OVERLOADED"
            first.cancel()
            deadline = time.monotonic() + 20
            while True:
                call = server.events.Subscribe(SubscribeRequest())
                try:
                    assert (await call.read()).caught_up
                except grpc.aio.AioRpcError:
                    assert time.monotonic() < deadline  # until the server has heard of the cancellation
                    continue
                break
            call.cancel()

    run(scenario)


def test_subscribers_of_one_server_see_what_another_one_commits_to_the_same_postgresql(
    tmp_path: Path, postgresql_write_db: str
) -> None:
    async def scenario() -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        one.mkdir()
        other.mkdir()
        async with (
            command_server(one, write_db_url=postgresql_write_db, workers="2") as ours,
            command_server(other, write_db_url=postgresql_write_db) as theirs,
        ):
            calls = [server.events.Subscribe(SubscribeRequest()) for server in (ours, theirs)]
            await theirs.register()
            servers = (ours, theirs)
            await asyncio.gather(*(servers[each % 2].orders.CreateOrder(order(f"o-{each}")) for each in range(200)))
            for call in calls:
                seen: list[int] = []
                while len(seen) < 201:
                    seen += [event.position for event in (await call.read()).events]
                assert seen == list(range(1, 202))
                call.cancel()

    run(scenario)


def test_a_subscription_outlives_a_restart_of_postgresql_and_a_long_outage_ends_it_with_a_reason(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with postgresql_server() as database:
            databases = Databases(database.url)
            url = text_of(databases.with_schema())
            async with command_server(tmp_path, write_db_url=url) as server:
                await server.register()
                call = server.events.Subscribe(SubscribeRequest())
                seen: list[int] = []

                async def read_until(position: int) -> SubscribeResponse:
                    while True:
                        answer: SubscribeResponse = await call.read()
                        seen.extend(event.position for event in answer.events)
                        if answer.position >= position:
                            return answer

                async def order_until_taken(order_id: str) -> None:
                    deadline = time.monotonic() + 30
                    while True:
                        try:
                            await server.orders.CreateOrder(order(order_id, request_id=order_id), timeout=10)
                        except grpc.aio.AioRpcError:
                            assert time.monotonic() < deadline
                            await asyncio.sleep(0.1)
                        else:
                            return

                await read_until(1)
                await asyncio.to_thread(database.stop, crash=True)
                await asyncio.to_thread(database.start)
                await order_until_taken("o-1")
                last = await read_until(2)
                await asyncio.to_thread(database.stop)
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await call.read()
                assert decode_error(ended.value).reason == "STORE_UNAVAILABLE"
                await asyncio.to_thread(database.start)
                await order_until_taken("o-2")
                call = server.events.Subscribe(SubscribeRequest(resume_token=last.resume_token))
                await read_until(3)
                assert seen == [1, 2, 3]
                call.cancel()

    run(scenario)
