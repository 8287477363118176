"""What an operator sees of EventService."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SubscriptionMetrics:
    """Prometheus metrics of the subscriptions to the log."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.subscribers = Gauge("orderstream_subscribers", "Subscriptions to the log.", registry=registry)
        self.behind = Gauge(
            "orderstream_subscribers_behind",
            "Subscriptions that read from the write DB, as the newest events in memory are beyond them.",
            registry=registry,
        )
        self.events = Counter(
            "orderstream_subscription_events", "Events that were delivered to subscribers.", registry=registry
        )
        self.pages = Counter(
            "orderstream_subscription_pages", "Pages of the log that were read for subscribers.", registry=registry
        )
        self.refused = Counter(
            "orderstream_subscriptions_refused", "Subscriptions refused as there were too many.", registry=registry
        )
        self.tail_events = Gauge(
            "orderstream_tail_events", "Newest events kept in memory for subscribers.", registry=registry
        )
        self.tail_bytes = Gauge(
            "orderstream_tail_bytes", "What these events take in memory, in bytes, about.", registry=registry
        )
