"""Where two histories part, found by halving."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cli.recovery.comparison import last_true


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_last_position_that_two_histories_share_is_found_in_few_steps(shared: int, last: int) -> None:
    asked: list[int] = []

    async def is_same(position: int) -> bool:
        asked.append(position)
        return position <= shared

    assert asyncio.run(last_true(is_same, last)) == min(shared, last)
    assert all(1 <= position <= last for position in asked)
    assert len(asked) <= 16
