"""What an operator sees of snapshots."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class SnapshotMetrics:
    """Prometheus metrics of one process's snapshots."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.taken = Counter("orderstream_snapshots_taken", "Snapshots written.", registry=registry)
        self.used = Counter("orderstream_snapshots_used", "Snapshots that a state was loaded from.", registry=registry)
        self.refused = Counter(
            "orderstream_snapshots_refused",
            "Snapshots that were not used, by reason; the events were folded instead.",
            ["reason"],
            registry=registry,
        )
        self.dropped = Counter(
            "orderstream_snapshots_dropped", "Snapshots not taken because too many waited.", registry=registry
        )
        self.failed = Counter(
            "orderstream_snapshots_failed", "Snapshots not taken because writing failed.", registry=registry
        )
        self.folded = Counter(
            "orderstream_events_folded", "Events read from the log to load aggregates.", registry=registry
        )
