"""The projector's metrics. The statuses keep the numbers; a scrape reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cqrs.projection.status import ProjectionStatus
from orderstream.projections.v1.projection_service_pb2 import ProjectionState

_LABELS = ("projection",)
_Reading = tuple[str, str, Callable[[ProjectionStatus], float]]

_STATE_PREFIX = "PROJECTION_STATE_"


class ProjectionMetrics(Collector):
    """Lag, position, state and work of each projection, and how long commits take."""

    def __init__(self, registry: CollectorRegistry, statuses: Sequence[ProjectionStatus]) -> None:
        self._statuses = statuses
        commit_seconds = Histogram(
            "orderstream_projection_commit_seconds",
            "Time to verify, apply and commit one batch of events, in seconds.",
            _LABELS,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self._commit_seconds = {status.name: commit_seconds.labels(status.name) for status in statuses}
        registry.register(self)

    def committed(self, projection: str, seconds: float) -> None:
        """A batch was committed."""
        self._commit_seconds[projection].observe(seconds)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The families, by projection."""
        gauges: tuple[_Reading, ...] = (
            ("position", "Last log position applied.", lambda status: status.position),
            ("lag_events", "Events known to be in the log and not applied yet.", lambda status: status.lag.events),
            (
                "lag_seconds",
                "How long the oldest event not applied yet has been known, in seconds.",
                lambda status: status.lag.seconds,
            ),
        )
        for name, documentation, value in gauges:
            gauge = GaugeMetricFamily(f"orderstream_projection_{name}", documentation, labels=_LABELS)
            for status in self._statuses:
                gauge.add_metric((status.name,), value(status))
            yield gauge
        counters: tuple[_Reading, ...] = (
            ("applied_events", "Events applied since the process started.", lambda status: status.applied_events),
            (
                "healed_events",
                "Events that the stream lacked and that were read from the log.",
                lambda status: status.healed_events,
            ),
            ("retries", "How often the projection was held up and tried again.", lambda status: status.retries),
        )
        for name, documentation, value in counters:
            counter = CounterMetricFamily(f"orderstream_projection_{name}", documentation, labels=_LABELS)
            for status in self._statuses:
                counter.add_metric((status.name,), value(status))
            yield counter
        yield self._states()

    def _states(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "orderstream_projection_state", "1 for the state that the projection is in.", labels=("projection", "state")
        )
        for status in self._statuses:
            for name, number in ProjectionState.items():
                if number:
                    state = name.removeprefix(_STATE_PREFIX).lower()
                    family.add_metric((status.name, state), float(status.state == number))
        return family
