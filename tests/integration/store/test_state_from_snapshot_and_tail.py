"""The property that all use of snapshots rests on: they make no difference to any state."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings

from cqrs.snapshots.folding import Fold
from cqrs.snapshots.history import PastFold
from cqrs.snapshots.snapshot import Bound
from cqrs.store.port import EventStore
from tests.integration.store.decided_histories import Step, decided, steps
from tests.integration.store.snapshot_rows import put
from tests.orders_history import History
from tests.snapshots_support import DAMAGES, TYPES, Loading, append_events, fold_all, of, same, snapshot_at


class Checker:
    """Takes random histories one after the other, each with aggregates of its own, in one log."""

    def __init__(self, store: EventStore) -> None:
        self.loading = Loading()
        self._store = store
        self._history = History()
        self._prefixes = (f"h{number}" for number in count())

    def check(self, wanted: list[Step]) -> None:
        prefix = next(self._prefixes)
        history, store = self._history, self._store
        for step, events in decided(history, prefix, wanted):
            if events:
                append_events(store, events)
            id_ = events[0].aggregate_id if events else f"{prefix}-o{step.order}"
            full = fold_all(history.events, id_)
            assert same(self.loading.loader.load(store, [id_])[id_], full)
            if step.snapshot is not None and of(history.events, id_):
                right = snapshot_at(history.events, id_, len(of(history.events, id_)))
                put(store, DAMAGES[step.snapshot](right) if step.snapshot else right)
                assert same(self.loading.loader.load(store, [id_])[id_], full)
        ids = [f"{prefix}-c", f"{prefix}-o0", f"{prefix}-o1"]
        loaded = self.loading.loader.load(store, ids)
        assert all(same(loaded[id_], fold_all(history.events, id_)) for id_ in ids)
        for id_ in ids:
            self._check_every_version(id_)

    def _check_every_version(self, aggregate_id: str) -> None:
        full = Fold(TYPES, aggregate_id)
        for event in of(self._history.events, aggregate_id):
            full.apply([event])
            for bound in (
                Bound(version=event.version),
                Bound(position=event.position),
                Bound(record_time=event.record_time),
            ):
                past = PastFold(self._store, self.loading.snapshots, aggregate_id, bound)
                while not past.step():
                    pass
                assert past.fold is not None
                assert same(past.fold.result(), full.result())


@pytest.mark.timeout(300)
def test_state_from_snapshot_and_tail_equals_the_full_fold_at_every_version(store: EventStore) -> None:
    checker = Checker(store)

    @given(steps(list(DAMAGES)))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def holds(wanted: list[Step]) -> None:
        checker.check(wanted)

    holds()
    assert checker.loading.count("used") > 100, "the property must not hold because no snapshot is ever used"
    assert checker.loading.count("refused", reason="checksum") > 0
