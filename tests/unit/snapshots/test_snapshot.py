from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from cqrs.snapshots.snapshot import Capture, Snapshot, checksum_of, seal

CAPTURE = Capture("o-1", 7, 40, b"h" * 32, "order", 1_700_000_000_000_000, StringValue(value="state"))
SEALED = seal(CAPTURE, b"f" * 32)


def test_a_sealed_snapshot_holds_the_state_and_all_that_was_captured_with_it() -> None:
    assert StringValue.FromString(SEALED.state) == CAPTURE.state
    assert SEALED[:6] == CAPTURE[:6]
    assert (SEALED.fingerprint, SEALED.checksum) == (b"f" * 32, checksum_of(SEALED))


@pytest.mark.parametrize("column", [column for column in Snapshot._fields if column != "checksum"])
def test_the_checksum_covers_every_other_column(column: str) -> None:
    value = getattr(SEALED, column)
    changed: dict[str, Any] = {column: value + 1 if isinstance(value, int) else value + value[:1]}
    assert checksum_of(SEALED._replace(**changed)) != SEALED.checksum


@given(st.integers(0, len(SEALED.state) * 8 - 1))
def test_a_flipped_bit_of_the_state_shows_in_the_checksum(bit: int) -> None:
    flipped = bytearray(SEALED.state)
    flipped[bit // 8] ^= 1 << bit % 8
    assert checksum_of(SEALED._replace(state=bytes(flipped))) != SEALED.checksum


def test_what_moves_from_one_column_to_the_next_shows_in_the_checksum() -> None:
    moved = SEALED._replace(aggregate_type=SEALED.aggregate_type + "f", fingerprint=SEALED.fingerprint[1:])
    assert checksum_of(moved) != SEALED.checksum
