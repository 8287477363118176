"""Checks of request fields."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cqrs.errors import InvalidRequest
from cqrs.serving.validation import LATEST_TIMESTAMP, Violations


def fields_of(v: Violations) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        v.check()
    return [violation.field for violation in caught.value.violations]


def test_no_violation_passes() -> None:
    v = Violations()
    v.text("a", "Grüße, 世界", 1, 20)
    v.text("b", "", 0, 5)
    v.text("c", "no-break\u00a0space is no control character", 1, 50)
    v.identifier("d", "cdnow-1_2~3.4")
    v.integer("e", 5, 1, 5)
    v.timestamp("f", Timestamp())
    v.duration("g", Duration(seconds=30), 0, 30)
    v.check()
    assert not v


def test_every_violation_is_named_not_only_the_first() -> None:
    v = Violations()
    v.text("a", "", 1, 5)
    v.text("b", "123456", 1, 5)
    v.identifier("c", "-x")
    v.integer("d", 0, 1, 5)
    v.timestamp("e", Timestamp(seconds=-1), 0, 10)
    v.duration("f", Duration(seconds=31), 0, 30)
    v.add("g", "is wrong")
    assert fields_of(v) == ["a", "b", "c", "d", "e", "f", "g"]


@pytest.mark.parametrize("character", ["\x00", "\n", "\t", "\x1f", "\x7f", "\x85", "\x9f"])
def test_control_characters_in_text_are_violations(character: str) -> None:
    v = Violations()
    v.text("a", f"x{character}y", 1, 5)
    assert fields_of(v) == ["a"]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=64))
def test_text_without_control_characters_passes(text: str) -> None:
    v = Violations()
    v.text("a", text, 1, 64)
    v.check()


@pytest.mark.parametrize("text", ["", " ", "-a", ".a", "a b", "ä", "a" * 65, "a\n", "a/b"])
def test_what_is_no_identifier_is_a_violation(text: str) -> None:
    v = Violations()
    v.identifier("a", text)
    assert fields_of(v) == ["a"]


def test_a_timestamp_is_cut_to_microseconds() -> None:
    v = Violations()
    assert v.timestamp("a", Timestamp(seconds=1, nanos=999_999_999)) == 1_999_999
    assert v.timestamp("a", Timestamp(seconds=253_402_300_799, nanos=999_999_999)) == LATEST_TIMESTAMP
    v.check()


@pytest.mark.parametrize(
    "value",
    [
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(seconds=2**63 - 1),
        Timestamp(seconds=-(2**63)),
    ],
)
def test_what_is_no_timestamp_is_a_violation(value: Timestamp) -> None:
    v = Violations()
    v.timestamp("a", value)
    assert fields_of(v) == ["a"]


@pytest.mark.parametrize(
    "value",
    [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=30, nanos=1),
        Duration(nanos=1_000_000_000),
        Duration(seconds=2**63 - 1),
    ],
)
def test_what_is_no_duration_in_range_is_a_violation(value: Duration) -> None:
    v = Violations()
    v.duration("a", value, 0, 30)
    assert fields_of(v) == ["a"]
