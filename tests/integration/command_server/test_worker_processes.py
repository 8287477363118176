"""The command server as a main process and its workers: one port, one fate."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from orderstream.orders.v1.commands_pb2_grpc import OrderCommandServiceStub
from tests.integration.command_server.rig import CommandServer, command_server, order, run
from tests.integration.logs import assert_one_gapless_chain


def workers_of(server: CommandServer) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(runs(pid) for pid in pids):  # noqa: ASYNC110 - nobody tells when another's child ends
            await asyncio.sleep(0.02)


async def create_over_own_connection(server: CommandServer, name: str) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(server.address, options) as channel:
        stub: Any = OrderCommandServiceStub(channel)
        await stub.CreateOrder(order(name), timeout=20)


def test_connections_are_spread_over_the_workers_whose_commands_make_one_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="2") as server:
            await server.register()
            await asyncio.gather(*(create_over_own_connection(server, f"o-{number}") for number in range(60)))
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) == 61
            served = {
                line.partition('worker="')[2][0]: float(line.rpartition(" ")[2])
                for line in (await server.http("/metrics")).splitlines()
                if line.startswith("grpc_server_handled_total{") and "CreateOrder" in line
            }
            assert sorted(served) == ["0", "1"]
            assert sum(served.values()) == 60

    run(scenario)


def test_each_family_of_metrics_is_shown_once_with_the_values_of_all_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="2") as server:
            await server.register()
            lines = (await server.http("/metrics")).splitlines()
            families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
            assert len(families) == len(set(families))
            for worker in ("0", "1"):
                assert any(line.startswith(f'orderstream_worker_cpu_seconds{{worker="{worker}"}}') for line in lines)

    run(scenario)


@pytest.mark.parametrize("number", [0, 1])
def test_when_a_worker_is_killed_the_process_says_so_and_ends_and_leaves_no_process_behind(
    tmp_path: Path, number: int
) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="2") as server:
            await server.register()
            workers = workers_of(server)
            assert len(workers) == 2
            os.kill(workers[number], signal.SIGKILL)
            assert await asyncio.wait_for(server.process.wait(), 20) == 70
            await until_gone(workers)
            assert f"worker {number} (process {workers[number]}) was ended by SIGKILL" in server.log.read_text()
        async with command_server(tmp_path) as server:
            assert len(await server.read_log()) == 1

    run(scenario)


def test_when_a_worker_dies_the_calls_of_the_others_are_answered_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = tmp_path / "go"
        pause = f"store.before_commit=pause:2:{go}"
        async with command_server(tmp_path, workers="2", failpoints=pause) as server:
            await server.register()
            calls = [asyncio.create_task(create_over_own_connection(server, f"o-{number}")) for number in range(40)]
            await asyncio.sleep(1)
            os.kill(workers_of(server)[0], signal.SIGKILL)
            await asyncio.sleep(0.3)
            go.touch()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert await asyncio.wait_for(server.process.wait(), 20) == 70
            answered = outcomes.count(None)
            assert 0 < answered < 40
        async with command_server(tmp_path) as server:
            log = await server.read_log()
            assert_one_gapless_chain(log)
            assert len(log) >= 1 + answered

    run(scenario)


def test_when_the_main_process_is_killed_its_workers_die_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="3") as server:
            workers = workers_of(server)
            assert len(workers) == 3
            server.process.kill()
            await server.process.wait()
            await until_gone(workers)

    run(scenario)


def test_a_worker_that_does_not_end_is_killed_when_the_time_to_drain_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="2", drain_seconds="0.2") as server:
            workers = workers_of(server)
            os.kill(workers[1], signal.SIGSTOP)
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(server.process.wait(), 30) == 0
            await until_gone(workers)
            assert "a worker does not end and is killed" in server.log.read_text()

    run(scenario)


def test_a_worker_that_stands_still_costs_no_memory_and_is_told_the_newest_head_when_it_goes_on(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path, workers="2") as server:
            workers = workers_of(server)
            # Which worker our connection has got is the kernel's choice: the other one is stopped.
            await server.register()
            lines = (await server.http("/metrics")).splitlines()
            (ours,) = (
                line.partition('worker="')[2][0]
                for line in lines
                if line.startswith("grpc_server_handled_total{") and "RegisterCustomer" in line
            )
            other = workers[1 - int(ours)]
            os.kill(other, signal.SIGSTOP)
            try:
                for number in range(50):
                    await server.orders.CreateOrder(order(f"o-{number}"))
            finally:
                os.kill(other, signal.SIGCONT)
            await asyncio.gather(*(create_over_own_connection(server, f"p-{number}") for number in range(20)))
            assert len(await server.read_log()) == 71

    run(scenario)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_refused_even_if_its_holder_would_share_it(
    tmp_path: Path, workers: str, *, share: bool
) -> None:
    async def scenario() -> None:
        with socket.socket() as holder:
            if share:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            listen = f"127.0.0.1:{holder.getsockname()[1]}"
            with pytest.raises(AssertionError, match=f"(?s)status 78.*cannot listen on {listen}"):
                async with command_server(tmp_path, workers=workers, listen=listen):
                    pass

    run(scenario)


def test_two_servers_of_several_workers_do_not_share_a_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "other").mkdir()
        async with command_server(tmp_path, workers="2") as server:
            with pytest.raises(AssertionError, match=r"(?s)status 78.*cannot listen on"):
                async with command_server(tmp_path / "other", workers="2", listen=server.address):
                    pass
            with suppress(FileNotFoundError):
                (tmp_path / "other" / "command.json").unlink()
            await server.register()

    run(scenario)
