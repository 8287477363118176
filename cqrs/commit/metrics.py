"""What an operator sees of the committer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class CommitMetrics:
    """Prometheus metrics of one committer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch_commands = Histogram(
            "orderstream_commit_batch_commands",
            "Commands in a batch.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        )
        self.commit_seconds = Histogram(
            "orderstream_commit_seconds",
            "Time from taking a batch to its durable commit, in seconds.",
            registry=registry,
            buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
        )
        self.events = Counter("orderstream_events_appended", "Events appended to the log.", registry=registry)
        self.queued_commands = Gauge("orderstream_commit_queue_commands", "Commands that wait.", registry=registry)
        self.queued_bytes = Gauge("orderstream_commit_queue_bytes", "Bytes of commands that wait.", registry=registry)
        self.refused = Counter(
            "orderstream_commands_refused", "Commands refused because the queue was full.", registry=registry
        )
        self.replayed = Counter(
            "orderstream_commands_replayed", "Commands answered with a stored outcome.", registry=registry
        )
        self.expired = Counter(
            "orderstream_commands_expired", "Commands dropped, undecided, as nobody waited any more.", registry=registry
        )
        self.replanned = Counter(
            "orderstream_batches_replanned", "Batches decided again under the lock.", registry=registry
        )
        self.store_errors = Counter(
            "orderstream_store_errors", "Transactions that failed because the write DB did.", registry=registry
        )
        self.cached_aggregates = Gauge(
            "orderstream_cached_aggregates", "Aggregate states in memory.", registry=registry
        )
        self.head_position = Gauge("orderstream_log_head_position", "Position of the log's head.", registry=registry)
        self.pruned_results = Counter(
            "orderstream_command_results_pruned", "Stored outcomes deleted because of their age.", registry=registry
        )
