from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from command_server.aggregates import AGGREGATE_TYPES
from cqrs.snapshots.behaviour import Untold, behaviour_of
from cqrs.snapshots.fingerprint import fingerprint_of_type
from tests.unit.snapshots.samples import FIELDS, FOLD, module, sample_type


def changed(old: str, new: str) -> str:
    assert FOLD.count(old) == 1
    return FOLD.replace(old, new)


UNCHANGED = fingerprint_of_type(sample_type())


@pytest.mark.parametrize(
    "source",
    [
        changed("account.owner = event.owner", "account.owner = event.owner + 1"),
        changed("account.owner = event.owner", "pass"),
        changed("amount * factor - FEE", "amount * factor + FEE"),
        changed("factor=1", "factor=2"),
        changed("FEE = 3", "FEE = 4"),
        changed('"a", "b", "c"', '"a", "b"'),
        changed("Paid: _paid", "Paid: _opened"),
        changed(", Paid: _paid", ""),
        changed("EVOLVE[type(event)](account, event)", "EVOLVE.get(type(event), _paid)(account, event)"),
        FOLD + "\nEVOLVE[Opened] = lambda account, event: None\n",
        FOLD + "\ndef take(function):\n    EVOLVE[Opened] = function\n\n@take\ndef _other(account, event): pass\n",
        changed("FEE = 3", "FEE = 3.0"),
        changed("FEE = 3", "FEE = True"),
        changed("amount * factor - FEE", "(lambda fee: amount - fee)(FEE)"),
    ],
)
def test_a_change_of_the_fold_or_of_what_it_names_is_another_fingerprint(source: str) -> None:
    assert fingerprint_of_type(sample_type(source)) != UNCHANGED


@pytest.mark.parametrize(
    "source",
    [
        "# a comment\n" + FOLD.replace("    account.owner", "    # why\n\n    account.owner"),
        changed(
            "def _without_fee(amount, factor=1):\n",
            'def _without_fee(amount, factor=1):\n    """What it does."""\n\n',
        ),
        changed("def _opened(account, event):", "def _opened(account: int, event: 'str') -> None:"),
        changed("FEE = 3", "FEE: int = 3"),
        changed("return 7", "return 8"),
        changed("OTHER = 9", "OTHER = 10"),
        changed('"a", "b", "c"', '"c", "b", "a"'),
        changed("amount * factor - FEE", "(\n        amount * factor\n        - FEE\n    )"),
        FOLD + "\ndef decide(account, command):\n    return []\n",
        FOLD.replace("_without_fee", "_less_fee"),
    ],
)
def test_comments_docstrings_annotations_and_what_it_does_not_name_leave_the_fingerprint_as_it_is(source: str) -> None:
    assert fingerprint_of_type(sample_type(source)) == UNCHANGED


@pytest.mark.parametrize(
    "fields",
    [
        {"Account": {"balance": 1, "owner": 2, "limit": 3}},
        {"Account": {"balance": 1, "owner": 3}},
        {"Account": {"balance": 1, "keeper": 2}, "Opened": {"owner": 1}},
        {"Paid": {"amount": 1, "note": 2, "currency": 3}},
        {"Opened": {"owner": 4}},
    ],
)
def test_a_change_of_a_field_of_state_or_event_is_another_fingerprint(fields: Mapping[str, Mapping[str, int]]) -> None:
    assert fingerprint_of_type(sample_type(fields={**FIELDS, **fields})) != UNCHANGED


def test_a_type_of_another_name_or_with_fewer_events_has_another_fingerprint() -> None:
    type_ = sample_type()
    assert fingerprint_of_type(replace(type_, name="other")) != UNCHANGED
    assert fingerprint_of_type(replace(type_, events=dict(list(type_.events.items())[:1]))) != UNCHANGED


FINGERPRINTS = """
from command_server.aggregates import AGGREGATE_TYPES
from cqrs.snapshots.fingerprint import fingerprint_of_type
from tests.unit.snapshots.samples import sample_type
for type_ in (*AGGREGATE_TYPES, sample_type()):
    print(fingerprint_of_type(type_).hex())
"""


def test_every_process_has_the_same_fingerprints_whatever_its_hash_seed() -> None:
    here = [fingerprint_of_type(type_).hex() for type_ in (*AGGREGATE_TYPES, sample_type())]
    for seed in ("0", "1", "4711"):
        there = subprocess.run(
            [sys.executable, "-c", FINGERPRINTS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.split() == here


def test_each_aggregate_of_the_command_server_has_a_fingerprint_of_its_own() -> None:
    assert len({fingerprint_of_type(type_) for type_ in AGGREGATE_TYPES}) == len(AGGREGATE_TYPES)


@pytest.mark.parametrize(
    "body",
    [
        "    from sample.other import x\n",
        "    global COUNT\n    COUNT = 1\n",
        "    eval('1')\n",
        "    globals()\n",
        "    Own()\n",
        "    own.go()\n",
        "    bound()\n",
        "    instance.go()\n",
        "    table['missing']\n",
        "    pair.go()\n",
    ],
)
def test_a_fold_that_cannot_be_told_in_full_has_no_fingerprint_rather_than_a_wrong_one(body: str) -> None:
    source = (
        "import collections\ntable = collections.defaultdict(int)\n"
        "class Pair(tuple):\n    def go(self): pass\n\npair = Pair()\n"
        "class Own:\n    def go(self): pass\n\nCOUNT = 0\nbound = Own().go\ninstance = Own()\n"
        f"def evolve(state, event):\n{body}"
    )
    names = {"own": module("def go(): pass\n")}
    with pytest.raises(Untold):
        behaviour_of(module(source, names).evolve)


@pytest.mark.parametrize("function", [len, partial(max, 1), object().__repr__])
def test_what_is_no_plain_function_cannot_be_told(function: Any) -> None:
    with pytest.raises(Untold):
        behaviour_of(function)


def test_closures_are_told_by_what_they_hold() -> None:
    source = "def make(step):\n    def evolve(state, event):\n        state.value += step\n    return evolve\n"
    make = module(source).make
    assert behaviour_of(make(1)) == behaviour_of(make(1))
    assert behaviour_of(make(1)) != behaviour_of(make(2))


def test_functions_and_tables_that_name_each_other_are_told_once() -> None:
    source = "def evolve(state, event):\n    TABLE['evolve'](state, event)\n\nTABLE = {'evolve': evolve}\n"
    assert "#0" in behaviour_of(module(source).evolve)
