"""How much of the streams may be under way."""

from __future__ import annotations

import asyncio

import pytest

from cqrs.workers.pace import Pace


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_is_let_in_than_commands_and_bytes_allow() -> None:
    async def scenario() -> None:
        pace = Pace(10, 1000)
        await pace.enter(6, 100)
        too_many = asyncio.create_task(pace.enter(5, 100))
        await settled()
        assert not too_many.done()
        pace.leave(6, 100)
        await too_many
        too_large = asyncio.create_task(pace.enter(1, 901))
        await settled()
        assert not too_large.done()
        pace.leave(5, 100)
        await too_large

    asyncio.run(scenario())


def test_first_come_first_served_so_that_a_large_request_is_not_passed_by_small_ones_for_ever() -> None:
    async def scenario() -> None:
        pace = Pace(10, 1000)
        await pace.enter(5, 1)
        large = asyncio.create_task(pace.enter(10, 1))
        small = asyncio.create_task(pace.enter(1, 1))
        await settled()
        assert not large.done()
        assert not small.done()
        pace.leave(5, 1)
        await large
        await settled()
        assert not small.done()
        pace.leave(10, 1)
        await small

    asyncio.run(scenario())


def test_a_request_beyond_the_limits_is_let_in_alone() -> None:
    async def scenario() -> None:
        pace = Pace(0, 0)
        await pace.enter(1000, 5_000_000)
        second = asyncio.create_task(pace.enter(1, 1))
        await settled()
        assert not second.done()
        pace.leave(1000, 5_000_000)
        await second

    asyncio.run(scenario())


@pytest.mark.parametrize("its_turn_has_come", [True, False])
def test_who_gives_up_waiting_holds_nobody_up(*, its_turn_has_come: bool) -> None:
    async def scenario() -> None:
        pace = Pace(10, 1000)
        await pace.enter(10, 1)
        impatient = asyncio.create_task(pace.enter(10, 1))
        next_one = asyncio.create_task(pace.enter(10, 1))
        await settled()
        if its_turn_has_come:
            pace.leave(10, 1)
            impatient.cancel()
        else:
            impatient.cancel()
            await settled()
            pace.leave(10, 1)
        await asyncio.wait_for(next_one, 5)
        assert impatient.cancelled()

    asyncio.run(scenario())
