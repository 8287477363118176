"""An aggregate as it was: the nearest snapshot at or before a point, and the events from there to the point."""

from __future__ import annotations

from cqrs.records import EventRecord
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.rules import Snapshots
from cqrs.snapshots.snapshot import Bound
from cqrs.store.port import EventReader

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024
_PAGES_PER_STEP = 4


class PastFold:
    """Folds up to a point in steps of bounded work, so that one with a long way to go does not keep a thread.

    Where the point is makes no difference but in what is read: record times and positions grow with versions, and all
    events of one record time lie on the same side of every point. So a snapshot never hides an event from the point.
    """

    def __init__(self, reader: EventReader, snapshots: Snapshots, aggregate_id: str, bound: Bound) -> None:
        """Prepare to fold what `reader` reads of an aggregate, up to and including `bound`."""
        self._reader = reader
        self._snapshots = snapshots
        self._bound = bound
        self.aggregate_id = aggregate_id
        self.fold: Fold | None = None
        """What there is so far; None before the first step."""

    def step(self) -> bool:
        """Read and fold about 2,000 events; returns whether that was the last of them.

        Raises:
            StoreError: the database cannot be reached, or refused a statement.
        """
        if self.fold is None:
            self.fold = self._snapshots.start(self._reader, self.aggregate_id, self._bound)
        for _ in range(_PAGES_PER_STEP):
            events = self._next_page(self.fold)
            if not events or self.fold.apply(events, self._bound):
                return True
        return False

    def _next_page(self, fold: Fold) -> list[EventRecord]:
        limit = min(_PAGE_EVENTS, self._bound.version - fold.version)
        return self._reader.read_aggregate(self.aggregate_id, fold.version + 1, limit, _PAGE_BYTES) if limit > 0 else []
