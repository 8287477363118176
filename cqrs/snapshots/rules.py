"""For which aggregates snapshots are kept, and which snapshots can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from cqrs.commit.command import AggregateType
from cqrs.serving.logging import get_logger
from cqrs.snapshots.behaviour import Untold
from cqrs.snapshots.fingerprint import fingerprint_of_type
from cqrs.snapshots.folding import Fold
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.snapshot import Bound, Candidate, checksum_of
from cqrs.store.port import AggregateReader

_log = get_logger(__name__)


class SnapshotRule(NamedTuple):
    """Snapshots of one type of aggregate, which has any."""

    every_events: int
    """One is taken about every so many events, 1 or more."""
    fingerprint: bytes
    """What a snapshot has if it can be used: others are not even looked at."""


def rules_for(types: Iterable[AggregateType], every_events: Mapping[str, int]) -> dict[str, SnapshotRule]:
    """The rules by the name of the type. Without one are types for which `every_events` has 0 or nothing."""
    rules = {}
    for type_ in types:
        every = every_events.get(type_.name, 0)
        if every > 0:
            try:
                rules[type_.name] = SnapshotRule(every, fingerprint_of_type(type_))
            except Untold as error:
                _log.warning(
                    "no snapshots are taken or used: what the fold does cannot be told in full",
                    aggregate_type=type_.name,
                    error=str(error),
                )
    return rules


class Snapshots:
    """Begins folds from snapshots, if there are any that can be used: from any thread.

    Only snapshots with the fingerprint of this very code are asked for. Those of other releases stay as they are, for
    these may run beside this one.
    """

    def __init__(
        self, types: Iterable[AggregateType], rules: Mapping[str, SnapshotRule], metrics: SnapshotMetrics
    ) -> None:
        self.types: Mapping[str, AggregateType] = {type_.name: type_ for type_ in types}
        self.rules = rules
        self.fingerprints = tuple(rule.fingerprint for rule in rules.values())
        """Of the snapshots that can be used."""
        self._types_with_rules = {rule.fingerprint: self.types[name] for name, rule in rules.items()}
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def start_from(self, reader: AggregateReader, aggregate_id: str, candidate: Candidate | None) -> tuple[Fold, bool]:
        """A fold that begins at the newest snapshot, or an older one if it is of no use, or with nothing.

        Returns it, and whether `candidate` was of no use.
        """
        if candidate is None:
            return Fold(self.types, aggregate_id), False
        fold = self._open(candidate)
        if fold is not None:
            return fold, False
        return self.start(reader, aggregate_id, Bound(version=candidate.snapshot.version - 1)), True

    def start(self, reader: AggregateReader, aggregate_id: str, bound: Bound) -> Fold:
        """A fold that begins at the newest usable snapshot up to `bound`, or with nothing."""
        while self.fingerprints:
            candidate = reader.read_snapshot(aggregate_id, bound, self.fingerprints)
            if candidate is None:
                break
            fold = self._open(candidate)
            if fold is not None:
                return fold
            bound = bound._replace(version=candidate.snapshot.version - 1)
        return Fold(self.types, aggregate_id)

    def _open(self, candidate: Candidate) -> Fold | None:
        """What the snapshot holds; None, counted and logged once, if it must not or cannot be used."""
        snapshot = candidate.snapshot
        type_ = self._types_with_rules.get(snapshot.fingerprint)
        objection = _objection(candidate, type_)
        if type_ is not None and not objection:
            try:
                fold = Fold.resume(self.types, snapshot, type_.state.FromString(snapshot.state))
            except DecodeError:
                objection = "undecodable"
            else:
                self._metrics.used.inc()
                return fold
        self._metrics.refused.labels(objection).inc()
        if (objection, snapshot.aggregate_type) not in self._logged:
            self._logged.add((objection, snapshot.aggregate_type))
            _log.warning(
                _MEANING[objection],
                reason=objection,
                aggregate_type=snapshot.aggregate_type,
                aggregate_id=snapshot.aggregate_id,
                version=snapshot.version,
            )
        return None


def _objection(candidate: Candidate, type_: AggregateType | None) -> str:
    """Why a snapshot with the fingerprint of this type must not be decoded; empty if it may be."""
    snapshot = candidate.snapshot
    if type_ is None or type_.name != snapshot.aggregate_type:
        return "fingerprint"
    if snapshot.checksum != checksum_of(snapshot):
        return "checksum"
    if candidate.hash is None:
        return "ahead"
    if (candidate.position, candidate.hash) != (snapshot.position, snapshot.hash):
        return "branch"
    return ""


_MEANING = {
    "fingerprint": "a snapshot of other code or another schema was found, and not used; others like it are counted",
    "checksum": "a snapshot is damaged and not used; others like it are counted",
    "ahead": "a snapshot is ahead of the log, as after a restore, and not used; others like it are counted",
    "branch": "a snapshot is of another history, as after a restore, and not used; others like it are counted",
    "undecodable": "a snapshot cannot be decoded and is not used; others like it are counted",
}
"""By the reason that the metric has."""
