"""Metrics of the query server. The parts keep plain numbers; they are read when they are scraped, on the event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from orderstream.types.v1.freshness_pb2 import FreshnessState
from query_server.reader import ReadDatabase
from query_server.view import View

Family = CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily

_PREFIX = "orderstream_query_"


class QueryMetrics(Collector):
    """What caches, trackers and the read DB's threads do."""

    def __init__(self, views: Mapping[str, View], database: ReadDatabase) -> None:
        """`views` by projection."""
        self._views = views
        self._database = database

    def describe(self) -> Iterator[Family]:
        """The families are the same at all times."""
        return self.collect()

    def collect(self) -> Iterator[Family]:
        """The families with their values."""
        yield from self._cache()
        yield from self._projections()
        database = self._database
        yield GaugeMetricFamily(_PREFIX + "reads_pending", "Reads that run or wait for a thread.", database.pending)
        yield SummaryMetricFamily(
            _PREFIX + "read_seconds",
            "How long reads of the read DB took, waiting for a thread included, in seconds.",
            count_value=database.reads,
            sum_value=database.read_seconds,
        )

    def _cache(self) -> Iterator[Family]:
        label = ("projection",)
        counters = {
            "hits": "Answers from the cache.",
            "misses": "Answers that the cache did not have.",
            "joined": "Misses that waited for a read which was under way.",
            "invalidations": "Cached answers dropped because their row changed.",
            "evictions": "Cached answers dropped for want of space.",
            "expirations": "Cached answers dropped because of their age.",
            "refused": "Answers not cached because a change passed by while they were read.",
            "too_large": "Answers not cached because they are larger than the cache.",
        }
        for name, documentation in counters.items():
            counter = CounterMetricFamily(f"{_PREFIX}cache_{name}", documentation, labels=label)
            for projection, view in self._views.items():
                counter.add_metric((projection,), getattr(view.cache.counters, name))
            yield counter
        flushes = CounterMetricFamily(
            _PREFIX + "cache_flushes", "How often all was dropped, by reason.", labels=("projection", "reason")
        )
        entries = GaugeMetricFamily(_PREFIX + "cache_entries", "Cached answers.", labels=label)
        size = GaugeMetricFamily(_PREFIX + "cache_bytes", "Memory of cached answers, about.", labels=label)
        for projection, view in self._views.items():
            for reason, times in view.tracker.flushes.items():
                flushes.add_metric((projection, reason), times)
            entries.add_metric((projection,), len(view.cache))
            size.add_metric((projection,), view.cache.bytes_used)
        yield flushes
        yield entries
        yield size

    def _projections(self) -> Iterator[Family]:
        label = ("projection",)
        waiting = GaugeMetricFamily(_PREFIX + "waiting_calls", "Calls that wait for a consistency token.", labels=label)
        position = GaugeMetricFamily(
            _PREFIX + "projection_position", "The last log position that the read DB shows.", labels=label
        )
        lag = GaugeMetricFamily(
            _PREFIX + "projection_lag_events", "Events known to be in the log and not in the read DB.", labels=label
        )
        stale = GaugeMetricFamily(
            _PREFIX + "projection_stale_seconds",
            "For how long the read DB has been behind the log, or nothing was heard of the log.",
            labels=label,
        )
        state = GaugeMetricFamily(
            _PREFIX + "projection_state",
            "1 for the state of freshness that answers have.",
            labels=("projection", "state"),
        )
        for projection, view in self._views.items():
            now, log_position, stale_for = view.tails.observe()
            waiting.add_metric((projection,), view.tracker.waiting)
            position.add_metric((projection,), view.tracker.checkpoint)
            lag.add_metric((projection,), max(log_position - view.tracker.checkpoint, 0))
            stale.add_metric((projection,), stale_for)
            for name, number in FreshnessState.items():
                if number:
                    short = name.removeprefix("FRESHNESS_STATE_").lower()
                    state.add_metric((projection, short), float(number == now))
        yield from (waiting, position, lag, stale, state)
