"""Lag: how many events, and since when."""

from __future__ import annotations

from cqrs.projection.status import LagClock


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lag_is_counted_from_when_the_oldest_waiting_event_became_known() -> None:
    clock = Clock()
    lag = LagClock(clock)
    assert (lag.events, lag.seconds) == (0, 0.0)
    lag.heard(10)
    clock.now += 1
    lag.heard(30)
    clock.now += 1
    assert (lag.events, lag.seconds) == (30, 2.0)
    lag.applied(10)
    assert (lag.events, lag.seconds) == (20, 1.0)
    lag.applied(30)
    assert (lag.events, lag.seconds) == (0, 0.0)


def test_what_is_applied_before_it_was_heard_of_is_no_lag() -> None:
    clock = Clock()
    lag = LagClock(clock)
    lag.applied(5)
    lag.heard(5)
    lag.heard(3)
    clock.now += 10
    assert (lag.log_position, lag.events, lag.seconds) == (5, 0, 0.0)


def test_memory_is_bounded_however_long_a_projection_is_held_up() -> None:
    clock = Clock()
    lag = LagClock(clock)
    for position in range(1, 20_001):
        clock.now += 1
        lag.heard(position)
    assert len(lag._heard) <= 4096
    assert (lag.events, lag.seconds) == (20_000, 19_999.0)
