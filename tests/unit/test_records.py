from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs.records import GENESIS_HASH, EventRecord, chain_hash, from_wire, to_wire

EVENT = EventRecord(
    position=7,
    event_id="e-7",
    aggregate_type="order",
    aggregate_id="o-1",
    version=3,
    event_type="orderstream.orders.v1.OrderCreated",
    record_time=1_700_000_000_000_000,
    request_id="r-1",
    correlation_id=None,
    causation_id=None,
    actor="Zoë",
    traceparent=None,
    data=b"\x00\xff",
    hash=b"",
)

text = st.text(min_size=1, max_size=20)
records = st.builds(
    EventRecord,
    position=st.integers(1, 2**62),
    event_id=text,
    aggregate_type=text,
    aggregate_id=text,
    version=st.integers(1, 2**62),
    event_type=text,
    record_time=st.integers(0, 2**52),
    request_id=st.none() | text,
    correlation_id=st.none() | text,
    causation_id=st.none() | text,
    actor=st.none() | text,
    traceparent=st.none() | text,
    data=st.binary(max_size=50),
    hash=st.just(b""),
    reason=st.none() | text,
)


def test_the_form_of_the_hash_is_for_ever() -> None:
    """Written out by hand from docs/architecture.md: if this fails, every log in the world has become unreadable."""
    absent = b"\xff\xff\xff\xff"
    numbers = b"".join(value.to_bytes(8, "big") for value in (7, 3, 1_700_000_000_000_000))
    lengths = b"".join(
        each if isinstance(each, bytes) else each.to_bytes(4, "big")
        for each in (3, 5, 3, 34, 3, absent, absent, 4, absent, 2)
    )
    columns = "e-7" + "order" + "o-1" + "orderstream.orders.v1.OrderCreated" + "r-1" + "Zoë"
    expected = sha256(GENESIS_HASH + numbers + lengths + columns.encode() + b"\x00\xff").digest()
    assert chain_hash(GENESIS_HASH, EVENT) == expected
    reason = (15).to_bytes(4, "big") + (10).to_bytes(4, "big") + "ticket №".encode()
    with_reason = sha256(GENESIS_HASH + numbers + lengths + columns.encode() + b"\x00\xff" + reason).digest()
    assert chain_hash(GENESIS_HASH, EVENT._replace(reason="ticket №")) == with_reason


@pytest.mark.parametrize("column", [name for name in EventRecord._fields if name != "hash"])
def test_no_column_can_change_without_the_hash(column: str) -> None:
    value = getattr(EVENT, column)
    other: Any = {int: 8, str: "other", bytes: b"other", type(None): "other"}[type(value)]
    assert chain_hash(GENESIS_HASH, EVENT._replace(**{column: other})) != chain_hash(GENESIS_HASH, EVENT)


@given(records, records)
def test_different_events_have_different_hashes(one: EventRecord, other: EventRecord) -> None:
    assert (chain_hash(GENESIS_HASH, one) == chain_hash(GENESIS_HASH, other)) == (one == other)


@given(records)
def test_moving_text_from_one_column_to_the_next_changes_the_hash(event: EventRecord) -> None:
    moved = event._replace(event_id=event.event_id[:-1], aggregate_type=event.event_id[-1] + event.aggregate_type)
    assert chain_hash(GENESIS_HASH, moved) != chain_hash(GENESIS_HASH, event)


@given(records)
def test_an_event_survives_the_wire_with_its_hash(event: EventRecord) -> None:
    event = event._replace(hash=chain_hash(GENESIS_HASH, event))
    received = from_wire(to_wire(event))
    assert received == event
    assert chain_hash(GENESIS_HASH, received) == event.hash
