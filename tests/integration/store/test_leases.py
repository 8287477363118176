"""Leases: one holder at a time, by the database's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cqrs.store.leases import SqlLeases
from cqrs.store.port import StoreError
from tests.integration.logs import new_write_db

Open = Callable[[str], SqlLeases]


@pytest.fixture(params=["sqlite", "postgresql"])
def leases_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """The leases as a holder of some name sees them."""
    url = new_write_db(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgresql_write_db")
    opened: list[SqlLeases] = []

    def of(holder: str) -> SqlLeases:
        opened.append(SqlLeases(url, holder))
        return opened[-1]

    yield of
    for each in opened:
        each.close()


def test_a_lease_has_one_holder_who_can_renew_it(leases_of: Open) -> None:
    one, other = leases_of("one"), leases_of("other")
    assert one.hold("x", 60)
    assert not other.hold("x", 60)
    assert one.hold("x", 60)
    assert other.hold("y", 60)


def test_a_lease_that_is_given_back_or_has_run_out_can_be_had(leases_of: Open) -> None:
    one, other = leases_of("one"), leases_of("other")
    assert one.hold("x", 60)
    other.release("x")  # is not its to give
    assert not other.hold("x", 60)
    one.release("x")
    assert other.hold("x", 0.2)
    time.sleep(0.3)
    assert one.hold("x", 60)
    assert not other.hold("x", 60)


def test_of_many_who_ask_at_once_one_gets_it(leases_of: Open) -> None:
    holders = [leases_of(f"holder-{number}") for number in range(8)]
    for turn in range(10):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda each, name=f"x-{turn}": each.hold(name, 60), holders)) == 1


def test_a_database_that_cannot_be_asked_is_told_as_such() -> None:
    nowhere = SqlLeases("postgresql://nobody@127.0.0.1:1/nothing", "me")
    with pytest.raises(StoreError, match="Connection refused"):
        nowhere.hold("x", 1)
    nowhere.close()
