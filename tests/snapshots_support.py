"""What tests of snapshots share: rules and loaders of the real aggregates, stores with a history, damaged snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from command_server.aggregates import AGGREGATE_TYPES
from cqrs.commit.aggregates import AggregateState, LoadedAggregate
from cqrs.records import EventRecord, LogHead
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.loader import AggregateLoader
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import Snapshots, rules_for
from cqrs.snapshots.snapshot import Capture, Snapshot, checksum_of, seal
from cqrs.store.port import EventStore

TYPES = {type_.name: type_ for type_ in AGGREGATE_TYPES}
RULES = rules_for(AGGREGATE_TYPES, {"order": 5, "customer": 5})


class Loading:
    """Snapshots in use by one process, with what it counts and offers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = SnapshotMetrics(self.registry)
        self.snapshots = Snapshots(AGGREGATE_TYPES, RULES, metrics)
        self.offered: list[Capture] = []
        self.loader = AggregateLoader(self.snapshots, metrics, self.offered.append)

    def count(self, name: str, **labels: str) -> int:
        """A counter, as `used` or `refused`."""
        prefix = "orderstream_events" if name == "folded" else "orderstream_snapshots"
        return int(self.registry.get_sample_value(f"{prefix}_{name}_total", labels) or 0)


def append_events(store: EventStore, events: Sequence[EventRecord]) -> None:
    """Append these records as they are."""
    with store.begin_append() as transaction:
        last = events[-1]
        transaction.append(events, [], LogHead(last.position, last.hash, transaction.head.epoch, last.record_time))
        transaction.commit()


def of(events: Sequence[EventRecord], aggregate_id: str) -> list[EventRecord]:
    return [event for event in events if event.aggregate_id == aggregate_id]


def fold_all(events: Sequence[EventRecord], aggregate_id: str) -> AggregateState:
    """The state by folding every event of an aggregate, with no snapshot anywhere."""
    fold = Fold(TYPES, aggregate_id)
    fold.apply(of(events, aggregate_id))
    return fold.result()


def snapshot_at(events: Sequence[EventRecord], aggregate_id: str, version: int) -> Snapshot:
    """A right snapshot of an aggregate at a version."""
    fold = Fold(TYPES, aggregate_id)
    fold.apply(of(events, aggregate_id)[:version])
    capture = fold.capture()
    assert capture is not None
    assert capture.version == version
    return seal(capture, RULES[capture.aggregate_type].fingerprint)


def sealed(snapshot: Snapshot, **changes: object) -> Snapshot:
    """The snapshot with some columns changed and a checksum that says that this is right."""
    changed = snapshot._replace(**changes)  # type: ignore[arg-type]  # columns by name
    return changed._replace(checksum=checksum_of(changed))


DAMAGES: Mapping[str, Callable[[Snapshot], Snapshot]] = {
    "checksum": lambda it: it._replace(state=bytes([it.state[0] ^ 1]) + it.state[1:]),
    "truncated": lambda it: it._replace(state=it.state[:-1]),
    "checksum itself": lambda it: it._replace(checksum=bytes(32)),
    "fingerprint": lambda it: sealed(it, fingerprint=bytes(32)),
    "branch": lambda it: sealed(it, hash=bytes(32)),
    "position": lambda it: sealed(it, position=it.position + 1),
    "ahead": lambda it: sealed(it, version=it.version + 1_000_000),
    "undecodable": lambda it: sealed(it, state=b"\xff"),
    "of another type": lambda it: sealed(it, aggregate_type="customer" if it.aggregate_type == "order" else "order"),
}
"""Ways for a snapshot to be of no use."""


def same(one: AggregateState, other: AggregateState) -> bool:
    """Whether two loads came to the same."""
    if isinstance(one, LoadedAggregate) and isinstance(other, LoadedAggregate):
        return (one.type_name, one.version, one.state) == (other.type_name, other.version, other.state)
    return one == other
