"""What the audit finds in logs and views that are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cli.auditing.log_audit import LogAudit
from cli.auditing.view_audit import first_difference
from cqrs.records import GENESIS_HASH, EventRecord, LogHead, chain_hash


def make_log(aggregates: Sequence[str]) -> list[EventRecord]:
    """A right log: one event for each of `aggregates`, in order."""
    records: list[EventRecord] = []
    versions: dict[str, int] = {}
    previous = GENESIS_HASH
    for position, aggregate in enumerate(aggregates, start=1):
        versions[aggregate] = versions.get(aggregate, 0) + 1
        record = EventRecord(
            position=position,
            event_id=f"event-{position}",
            aggregate_type="order",
            aggregate_id=aggregate,
            version=versions[aggregate],
            event_type="orderstream.orders.v1.OrderCreated",
            record_time=1_000_000 + position,
            request_id=None,
            correlation_id=None,
            causation_id=None,
            actor=None,
            traceparent=None,
            data=b"data",
            hash=b"",
        )
        previous = chain_hash(previous, record)
        records.append(record._replace(hash=previous))
    return records


def problems(records: Sequence[EventRecord], head: LogHead) -> dict[str, str]:
    audit = LogAudit(head)
    audit.feed(records[:2])
    audit.feed(records[2:])
    return {check.rule: check.problem for check in audit.checks() if not check.holds}


def head_of(records: Sequence[EventRecord]) -> LogHead:
    return LogHead(records[-1].position, records[-1].hash, "epoch", records[-1].record_time)


LOG = make_log(["a", "b", "a", "c", "a"])


def test_a_right_log_passes_every_check() -> None:
    assert problems(LOG, head_of(LOG)) == {}
    assert problems([], LogHead(0, GENESIS_HASH, "epoch", 0)) == {}


def test_a_missing_event_is_found_as_a_gap_a_broken_chain_and_a_missing_version() -> None:
    found = problems([*LOG[:2], *LOG[3:]], head_of(LOG))
    assert found["positions have no gap"] == "position 2 is followed by 4"
    assert "position 4" in found["the hash chain is intact"]
    assert found["versions have no gap in any aggregate"] == "position 5: a goes from version 1 to 3"


@pytest.mark.parametrize("change", [{"data": b"datb"}, {"event_id": "other"}, {"actor": "somebody"}])
def test_any_change_to_a_stored_event_breaks_the_chain(change: dict[str, object]) -> None:
    changed = [*LOG[:3], LOG[3]._replace(**change), *LOG[4:]]  # type: ignore[arg-type] # any column
    assert list(problems(changed, head_of(LOG))) == ["the hash chain is intact"]


def test_a_log_whose_end_was_cut_off_is_found_by_its_head() -> None:
    assert problems(LOG[:4], head_of(LOG)) == {"the head is the last event": "the head says 5, the last event is at 4"}


def test_a_record_time_that_runs_backwards_is_found() -> None:
    records = [*LOG[:4], LOG[4]._replace(record_time=1_000_001)]
    assert "position 5 was recorded 3 µs before" in problems(records, head_of(LOG))["record times never run backwards"]


def test_the_first_difference_names_row_column_and_both_values() -> None:
    columns = ("id", "name", "total")
    expected = {("a",): ("a", "Ada", 1), ("b",): ("b", "Bob", 2), ("c",): ("c", "Cy", 3)}
    assert first_difference(columns, expected, dict(expected)) == ""
    wrong = {**expected, ("b",): ("b", "Bob", 5), ("c",): ("c", "Di", 3)}
    assert first_difference(columns, expected, wrong) == "row b, column total: 5 instead of 2 (2 rows differ)"
    assert first_difference(columns, expected, {("a",): ("a", "Ada", 1)}) == "row b is missing (2 rows differ)"
    assert first_difference(columns, {}, {("z",): ("z", "Zoe", 0)}) == "row z should not be there"
