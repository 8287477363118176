"""The importer's memory of what it has seen."""

from __future__ import annotations

import random
from contextlib import closing

from cli.importing.spilling_map import SpillingMap


def test_it_answers_as_a_dictionary_does_however_little_of_it_is_in_memory() -> None:
    chance = random.Random(11)
    for in_memory in (1, 7, 100_000):
        expected: dict[str, int] = {}
        with closing(SpillingMap(in_memory)) as entries:
            for _ in range(3000):
                key = f"kéy {chance.randint(0, 300)}"
                assert entries.get(key) == expected.get(key)
                expected[key] = expected.get(key, 0) + 1
                entries.put(key, expected[key])
            assert all(entries.get(key) == value for key, value in expected.items())
            assert entries.get("another") is None


def test_a_closed_one_is_empty() -> None:
    entries = SpillingMap(1)
    for key in "abc":
        entries.put(key, 1)
    entries.close()
    assert entries.get("a") is None
