"""Loading aggregates: the newest usable snapshot and the events behind it, many aggregates at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from cqrs.commit.aggregates import AggregateState
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots
from cqrs.snapshots.snapshot import Capture
from cqrs.store.port import AggregateReader

_EVENTS_PER_READ = 1000
"""What is held in memory at a time, of many small aggregates together."""

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024


class AggregateLoader:
    """Makes the newest states of aggregates: from any thread that may read."""

    def __init__(
        self, snapshots: Snapshots, metrics: SnapshotMetrics, offer: Callable[[Capture], None] | None = None
    ) -> None:
        """Build it; `offer` is given what is worth a snapshot, as it took many events to make."""
        self._snapshots = snapshots
        self._metrics = metrics
        self._offer = offer

    def load(self, reader: AggregateReader, aggregate_ids: Sequence[str]) -> dict[str, AggregateState]:
        """The aggregates as they are now; None for an id without events.

        Two statements, however many there are: what there is of each, and the events behind the snapshots. More only
        for aggregates of which very much must be read, and for snapshots that turn out to be of no use.

        Raises:
            StoreError: the database cannot be reached, or refused a statement.
        """
        states: dict[str, AggregateState] = dict.fromkeys(aggregate_ids)
        outlooks = reader.read_outlook(aggregate_ids, self._snapshots.fingerprints)
        folds: dict[str, Fold] = {}
        refused: set[str] = set()
        for aggregate_id, outlook in outlooks.items():
            folds[aggregate_id], useless = self._snapshots.start_from(reader, aggregate_id, outlook.candidate)
            if useless:
                refused.add(aggregate_id)
        missing = {
            aggregate_id: outlook.newest_version - folds[aggregate_id].version
            for aggregate_id, outlook in outlooks.items()
        }
        for part in _parts(missing):
            if len(part) == 1:
                _read_one(reader, folds[part[0]], outlooks[part[0]].newest_version)
            else:
                _read_many(reader, folds, {each: outlooks[each].newest_version for each in part})
        for aggregate_id, fold in folds.items():
            states[aggregate_id] = fold.result()
            self._metrics.folded.inc(fold.folded)
            self._consider(fold, aggregate_id in refused)
        return states

    def _consider(self, fold: Fold, refused: bool) -> None:
        if self._offer is None:
            return
        capture = fold.capture()
        rule = None if capture is None else self._snapshots.rules.get(capture.aggregate_type)
        if capture is not None and rule is not None and (refused or fold.folded > rule.every_events):
            self._offer(capture)


def _read_one(reader: AggregateReader, fold: Fold, newest_version: int) -> None:
    while fold.version < newest_version:
        events = reader.read_aggregate(fold.aggregate_id, fold.version + 1, _PAGE_EVENTS, _PAGE_BYTES)
        if not events:
            return
        fold.apply(events)


def _read_many(reader: AggregateReader, folds: Mapping[str, Fold], newest_versions: Mapping[str, int]) -> None:
    wanted = {each: range(folds[each].version + 1, newest + 1) for each, newest in newest_versions.items()}
    events = reader.read_tails(wanted)
    for aggregate_id, of_one in groupby(events, key=attrgetter("aggregate_id")):
        folds[aggregate_id].apply(of_one)


def _parts(missing: Mapping[str, int]) -> Iterator[list[str]]:
    """Those that lack events, in groups that lack a bounded number together; who lacks more is alone."""
    part: list[str] = []
    total = 0
    for aggregate_id, events in missing.items():
        if events <= 0:
            continue
        if part and total + events > _EVENTS_PER_READ:
            yield part
            part, total = [], 0
        part.append(aggregate_id)
        total += events
    if part:
        yield part
