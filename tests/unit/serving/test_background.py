"""Supervised tasks and the stop signal."""

from __future__ import annotations

import asyncio

import pytest

from cqrs.serving.background import Background
from cqrs.serving.health import Readiness
from cqrs.serving.stop import StopSignal


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("a wheel came off")


def test_a_task_that_dies_stops_the_process_with_its_error() -> None:
    async def scenario() -> None:
        stop = StopSignal()
        background = Background(stop)
        background.start("relay", fail())
        await asyncio.wait_for(stop.wait(), 5)
        with pytest.raises(ValueError, match="a wheel came off"):
            await background.close()
        assert stop.reason == "relay failed: a wheel came off"

    asyncio.run(scenario())


def test_tasks_that_still_run_are_cancelled_and_waited_for_at_the_end() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("work")

    async def scenario() -> None:
        stop = StopSignal()
        async with Background(stop) as background:
            background.start("work", work())
            await asyncio.sleep(0)
        assert ended == ["work"]
        assert not stop.is_set()

    asyncio.run(scenario())


def test_a_task_that_has_done_its_work_stops_nothing() -> None:
    async def scenario() -> None:
        stop = StopSignal()
        async with Background(stop) as background:
            await background.start("work", asyncio.sleep(0))
        assert not stop.is_set()

    asyncio.run(scenario())


def test_an_error_while_tasks_are_ended_is_raised_too() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("the disk is full") from None

    async def scenario() -> None:
        background = Background(StopSignal())
        background.start("work", stubborn())
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="the disk is full"):
            await background.close()

    asyncio.run(scenario())


def test_waiting_for_a_stop_ends_with_it_or_with_the_time() -> None:
    async def scenario() -> None:
        stop = StopSignal()
        assert not await stop.wait_for(0.01)
        asyncio.get_running_loop().call_later(0.01, stop.set, "enough")
        assert await stop.wait_for(5)
        stop.set("later")
        assert stop.reason == "enough"

    asyncio.run(scenario())


def test_a_process_is_ready_once_every_essential_component_is() -> None:
    readiness = Readiness()
    readiness.require("write DB", "opening")
    readiness.require("broker", "not connected", essential=False)
    states = [readiness.is_ready]
    readiness.set("write DB", None)
    states.append(readiness.is_ready)
    assert readiness.describe() == "ready\nwrite DB: ready\nbroker: not ready: not connected (not essential)\n"
    readiness.drain()
    states.append(readiness.is_ready)
    assert states == [False, True, False]
    with pytest.raises(KeyError):
        readiness.ready("never registered")
