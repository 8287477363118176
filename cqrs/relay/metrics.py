"""What an operator sees of the relay."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class RelayMetrics:
    """Prometheus metrics of one relay."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.published = Counter("orderstream_relay_events", "Events put on the stream.", registry=registry)
        self.batches = Counter("orderstream_relay_batches", "Atomic batches put on the stream.", registry=registry)
        self.failures = Counter(
            "orderstream_relay_failures", "Rounds that ended in an error and were tried again.", registry=registry
        )
        self.lag_events = Gauge(
            "orderstream_relay_lag_events",
            "Events in the log that are not on the stream yet; NaN until it was seen.",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "orderstream_relay_lag_seconds",
            "Age of the oldest event that is not on the stream yet, in seconds; 0: none; NaN until it was seen.",
            registry=registry,
        )
        self.position = Gauge("orderstream_relay_position", "Last position on the stream.", registry=registry)
        self.halted = Gauge(
            "orderstream_relay_halted", "1 if an operator must act before it goes on.", registry=registry
        )
