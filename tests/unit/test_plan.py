from __future__ import annotations

from cqrs.commit.aggregates import LoadedAggregate
from cqrs.commit.plan import Planner
from cqrs.records import GENESIS_HASH, LogHead
from tests.integration.commit.counters import raise_counter
from tests.integration.logs import assert_one_gapless_chain

EPOCH = "7f0c2f9e-5a41-4c34-9d57-6f1f3f1f7a10"


def test_record_time_never_runs_backwards_even_if_the_clock_does() -> None:
    planner = Planner(100_000)
    first = planner.plan(LogHead(0, GENESIS_HASH, EPOCH, 0), [raise_counter()], {}, {}, now=2_000_000)
    second = planner.plan(first.head, [raise_counter("d")], {}, {}, now=1_000_000)
    assert [event.record_time for event in (*first.events, *second.events)] == [2_000_000, 2_000_000]
    assert_one_gapless_chain([*first.events, *second.events])


def test_a_plan_leaves_the_states_that_it_was_given_alone() -> None:
    planner = Planner(100_000)
    first = planner.plan(LogHead(0, GENESIS_HASH, EPOCH, 0), [raise_counter()], {}, {}, now=1)
    before = first.states["c"]
    assert isinstance(before, LoadedAggregate)
    planner.plan(first.head, [raise_counter(), raise_counter()], first.states, {}, now=1)
    assert (before.version, before.state.SerializeToString()) == (1, b"\x08\x01")
    assert first.states["c"] is before
