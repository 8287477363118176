"""`orderstream events` against a real command server."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from tests.integration.cli.installation import ENVIRONMENT, ORDERSTREAM, Outcome, orderstream
from tests.integration.command_server.rig import CommandServer, command_server, order, run

WAIT_SECONDS = 30


async def events(server: CommandServer, *arguments: str) -> Outcome:
    return await asyncio.to_thread(orderstream, "events", *arguments, "--command-server", server.address)


async def printed(server: CommandServer, *arguments: str) -> list[Any]:
    """What a command prints as JSON lines."""
    outcome = await events(server, *arguments, "-o", "jsonl")
    assert outcome.returncode == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


async def process_of_orders(server: CommandServer) -> None:
    """A business process: 2 leads to 3 by its command's request id, and to 4 by its event id."""
    process = (("x-actor", "ada"), ("x-reason", "call 17"), ("x-correlation-id", "p-1"))
    await server.register()
    await server.orders.CreateOrder(order("o-1", request_id="r-1"), metadata=process)
    await server.orders.CreateOrder(order("o-2"), metadata=(*process, ("x-causation-id", "r-1")))
    second = (await server.read_log(2, 1))[0]
    await server.orders.CreateOrder(order("o-3"), metadata=(("x-causation-id", second.event_id),))


def test_tail_goes_on_without_a_gap_or_a_repetition_when_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            address = server.address
            await server.register()
            tail = await asyncio.create_subprocess_exec(
                *(*ORDERSTREAM, "events", "tail", "--from", "1", "-o", "jsonl", "--command-server", address),
                env=ENVIRONMENT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert tail.stdout is not None
            assert tail.stderr is not None

            async def next_position() -> int:
                assert tail.stdout is not None
                line = await asyncio.wait_for(tail.stdout.readline(), WAIT_SECONDS)
                return int(json.loads(line)["position"])

            try:
                assert await next_position() == 1
                await server.orders.CreateOrder(order("o-1"))
                assert await next_position() == 2
                server.process.kill()
                await server.process.wait()
                note = await asyncio.wait_for(tail.stderr.readline(), WAIT_SECONDS)
                assert b"trying again" in note
                async with command_server(tmp_path, listen=address) as again:
                    await again.orders.CreateOrder(order("o-2"))
                    assert await next_position() == 3
                    await again.orders.CreateOrder(order("o-3"))
                    assert await next_position() == 4
                    tail.send_signal(signal.SIGINT)
                    assert await asyncio.wait_for(tail.wait(), WAIT_SECONDS) == 0
            finally:
                if tail.returncode is None:
                    tail.kill()
                    await tail.wait()

    run(scenario)


def test_tail_shows_what_is_asked_for_of_what_there_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            assert await printed(server, "tail", "--no-follow") == []
            await server.register()
            for number in range(15):
                await server.orders.CreateOrder(order(f"o-{number}"))

            async def positions(*arguments: str) -> list[int]:
                return [int(event["position"]) for event in await printed(server, "tail", "--no-follow", *arguments)]

            assert await positions() == list(range(7, 17))
            assert await positions("--from", "3", "--limit", "4") == [3, 4, 5, 6]
            assert await positions("--from", "1", "--aggregate-type", "customer") == [1]
            assert await positions("--from", "10", "--event-type", "orderstream.orders.v1.OrderCreated") == [
                *range(10, 17)
            ]
            assert await positions("--aggregate", "o-3") == [5]
            assert await positions("--aggregate", "o-3", "--from", "2") == []
            assert await positions("--aggregate", "nobody") == []
            log = await server.read_log()
            time = "1970-01-01T00:00:00Z"
            assert await positions("--from-time", time) == [event.position for event in log]
            assert (await events(server, "tail", "--from", "1", "--from-time", time)).returncode == 2

    run(scenario)


def test_an_aggregate_is_read_either_way_and_shown_as_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await process_of_orders(server)
            read = await printed(server, "read", "o-1", "--backwards", "--limit", "1")
            assert [event["aggregate_id"] for event in read] == ["o-1"]
            nothing = await events(server, "read", "nobody")
            assert (nothing.returncode, nothing.stdout.strip()) == (0, "")
            assert "no events of nobody" in nothing.stderr
            shown = (await events(server, "show", "2")).stdout
            assert all(text in shown for text in ("OrderCreated", "ada", "call 17", "p-1", "r-1"))
            assert (await events(server, "show", "9")).returncode == 3
            state = await events(server, "state", "o-1", "--at-version", "1")
            assert state.returncode == 0
            assert "CREATED" in state.stdout
            assert (await printed(server, "state", "c-1", "--at-position", "1"))[0]["state"]["name"] == "Ada"
            assert (await events(server, "state", "o-1", "--at-position", "1")).returncode == 3
            assert (await events(server, "state", "o-1", "--at-version", "9")).returncode == 1
            assert (await events(server, "state", "o-1", "--at-version", "1", "--at-position", "2")).returncode == 2

    run(scenario)


def test_a_business_process_is_drawn_as_a_tree(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with command_server(tmp_path) as server:
            await process_of_orders(server)
            drawn = (await events(server, "tree", "--correlation", "p-1")).stdout.splitlines()
            # What does not fit in a line goes on in the next one, so only where events begin counts.
            begun = [line for line in drawn if "OrderCreated" in line]
            assert [line[0] for line in begun] == ["2", "├", "└"]
            assert ["o-1" in begun[0], "o-2" in begun[1], "o-3" in begun[2]] == [True] * 3
            nodes = await printed(server, "tree", "--position", "4")
            assert [(int(node["event"]["position"]), node.get("depth", 0)) for node in nodes] == [(2, 0), (4, 1)]
            bounded = await events(server, "tree", "--correlation", "p-1", "--limit", "1")
            assert "there are more" in bounded.stderr
            assert (await events(server, "tree")).returncode == 2

    run(scenario)
