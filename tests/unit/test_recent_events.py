from __future__ import annotations

from cqrs.records import GENESIS_HASH, LogHead
from cqrs.relay.recent import RecentEvents
from tests.integration.logs import events_after

ALL = 1 << 40
EVENTS = events_after(LogHead(0, GENESIS_HASH, "", 0), [("a", version) for version in range(1, 101)])


def test_what_was_committed_is_given_from_the_asked_position_on() -> None:
    recent = RecentEvents()
    recent.add(EVENTS[:3])
    recent.add(EVENTS[3:10])
    assert recent.take(1, 5, ALL) == EVENTS[:5]
    assert (recent.waiting(5), recent.waiting(10), recent.waiting(12)) == (5, 0, 0)
    assert recent.take(6, 100, ALL) == EVENTS[5:10]
    assert recent.take(11, 100, ALL) == []


def test_what_is_not_here_is_not_given_even_if_later_events_are() -> None:
    recent = RecentEvents()
    recent.add(EVENTS[5:10])
    assert recent.take(3, 100, ALL) == []
    assert recent.take(6, 1, ALL) == EVENTS[5:6]


def test_a_gap_in_what_was_committed_here_forgets_what_came_before_it() -> None:
    recent = RecentEvents()
    recent.add(EVENTS[:3])
    recent.add(EVENTS[7:9])
    assert recent.take(2, 100, ALL) == []
    assert recent.take(8, 100, ALL) == EVENTS[7:9]


def test_it_is_bounded_in_events_and_in_bytes() -> None:
    recent = RecentEvents()
    many = events_after(LogHead(0, GENESIS_HASH, "", 0), [("a", version) for version in range(1, 5001)])
    recent.add(many)
    assert recent.take(1, 1, ALL) == []
    assert recent.take(5000 - 4095, 10_000, ALL) == many[-4096:]
    large = events_after(
        LogHead(0, GENESIS_HASH, "", 0), [("a", version) for version in range(1, 10)], b"x" * 4_000_000
    )
    recent.add(large)
    assert recent.take(5, 1, ALL) == []
    assert recent.take(6, 10, ALL) == large[5:]
