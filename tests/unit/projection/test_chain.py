"""What arrives is believed only if it follows the checkpoint. Invariants 6 and 7."""

from __future__ import annotations

import pytest

from cqrs.errors import HistoryDiverged
from cqrs.projection.chain import Delivery, check_chain, check_same
from cqrs.projection.checkpoint import Checkpoint
from cqrs.records import GENESIS_HASH, EventRecord, to_wire
from tests.orders_history import EPOCH, History, random_history

OTHER_EPOCH = "22222222-2222-7222-8222-222222222222"


def delivery(event: EventRecord, epoch: str = EPOCH) -> Delivery:
    return Delivery(event.position, epoch, to_wire(event).SerializeToString())


def checkpoint_at(history: History, position: int) -> Checkpoint:
    if position == 0:
        return Checkpoint(1, 0, 0, GENESIS_HASH, "", 0)
    event = history.events[position - 1]
    return Checkpoint(1, 0, position, event.hash, history.epoch, event.record_time)


HISTORY = random_history(20, seed=1)
OTHER = random_history(20, seed=2)


@pytest.mark.parametrize("position", [0, 1, 12])
def test_events_that_follow_the_checkpoint_pass_unchanged(position: int) -> None:
    rest = HISTORY.events[position:]
    assert check_chain(checkpoint_at(HISTORY, position), EPOCH, map(delivery, rest)) == rest


def test_an_event_of_another_history_is_refused_with_both_hashes() -> None:
    with pytest.raises(HistoryDiverged, match=r"event 11 .* does not chain from position 10") as caught:
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [delivery(OTHER.events[10])])
    assert HISTORY.events[9].hash.hex() in str(caught.value)
    assert OTHER.events[10].hash.hex() in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"data": b"forged"}, {"aggregate_id": "o-other"}, {"actor": None}, {"hash": bytes(32)}]
)
def test_an_event_that_was_changed_is_refused(change: dict[str, object]) -> None:
    forged = EventRecord(**{**HISTORY.events[10]._asdict(), **change})
    with pytest.raises(HistoryDiverged, match="does not chain"):
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [delivery(forged)])


def test_an_event_of_another_epoch_is_refused_with_both_epochs() -> None:
    with pytest.raises(HistoryDiverged, match=f"{OTHER_EPOCH}.*{EPOCH}"):
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [delivery(HISTORY.events[10], OTHER_EPOCH)])


def test_one_bad_event_spoils_its_batch() -> None:
    deliveries = [*map(delivery, HISTORY.events[:10]), delivery(OTHER.events[10])]
    with pytest.raises(HistoryDiverged, match="event 11 "):
        check_chain(checkpoint_at(HISTORY, 0), EPOCH, deliveries)


def test_a_message_at_the_wrong_sequence_or_without_an_event_is_refused() -> None:
    misplaced = delivery(HISTORY.events[11])._replace(position=11)
    with pytest.raises(HistoryDiverged, match="position 11 of the stream holds event 12"):
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [misplaced])
    with pytest.raises(HistoryDiverged, match="position 11 of the stream holds no event"):
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [Delivery(11, EPOCH, b"\xff\xff")])
    with pytest.raises(HistoryDiverged, match="came after position 10"):
        check_chain(checkpoint_at(HISTORY, 10), EPOCH, [delivery(HISTORY.events[11])])


def test_the_event_at_the_checkpoint_must_be_the_one_that_was_applied() -> None:
    check_same(checkpoint_at(HISTORY, 10), delivery(HISTORY.events[9]))
    with pytest.raises(HistoryDiverged, match="is not the event that the read model has applied"):
        check_same(checkpoint_at(HISTORY, 10), delivery(OTHER.events[9]))
    with pytest.raises(HistoryDiverged, match="epoch"):
        check_same(checkpoint_at(HISTORY, 10), delivery(HISTORY.events[9], OTHER_EPOCH))
