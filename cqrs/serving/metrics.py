"""Metrics of a process, in its own Prometheus registry."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

RPC_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper limits of the latency histogram's buckets."""


class MethodMetrics:
    """Counts and times the calls of one method.

    Plain integers, since every call pays for this: all calls end on the event loop's thread, so no lock is needed, and
    an observation costs a quarter of what prometheus-client's own objects take.
    """

    __slots__ = ("_buckets", "_codes", "_seconds", "kind", "method", "service", "started")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        """ "unary", "server_stream", "client_stream" or "bidi_stream"."""
        self.started = 0
        """Calls that have begun."""
        self._codes: dict[grpc.StatusCode, int] = {}
        self._buckets = [0] * (len(RPC_BUCKETS_SECONDS) + 1)
        self._seconds = 0.0

    def observe(self, code: grpc.StatusCode, seconds: float) -> None:
        """A call has ended."""
        try:
            self._codes[code] += 1
        except KeyError:
            self._codes[code] = 1
        self._buckets[bisect_left(RPC_BUCKETS_SECONDS, seconds)] += 1
        self._seconds += seconds

    def count(self, code: grpc.StatusCode) -> int:
        """How many calls have ended with `code`."""
        return self._codes.get(code, 0)

    @property
    def codes(self) -> tuple[tuple[grpc.StatusCode, int], ...]:
        """How many calls have ended, by code."""
        return tuple(self._codes.items())

    @property
    def buckets(self) -> tuple[tuple[str, float], ...]:
        """The histogram: (upper limit, calls at or below it), ending with "+Inf"."""
        total = 0
        cumulative: list[tuple[str, float]] = []
        for limit, calls in zip((*map(str, RPC_BUCKETS_SECONDS), "+Inf"), self._buckets, strict=True):
            total += calls
            cumulative.append((limit, float(total)))
        return tuple(cumulative)

    @property
    def seconds(self) -> float:
        """Time that the ended calls took, in seconds."""
        return self._seconds


class ServerMetrics:
    """The registry of a process, with what every server measures.

    Other parts register their own metrics in `.registry`. RPCs have the names that the gRPC ecosystem uses
    (`grpc_server_handled_total`, `grpc_server_handling_seconds`, …), so that ready-made dashboards show them.
    """

    def __init__(self, *, of_process: bool = True) -> None:
        """Make a registry, with what is known of the process itself if `of_process`."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._methods: dict[str, MethodMetrics] = {}
        if of_process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self.registry.register(_RpcCollector(self._methods))

    def method(self, path: str, kind: str) -> MethodMetrics:
        """The metrics of a method; `path` is "/service/Method". The same object for the same path."""
        metrics = self._methods.get(path)
        if metrics is None:
            service, _, method = path.lstrip("/").partition("/")
            metrics = self._methods[path] = MethodMetrics(service, method, kind)
        return metrics


class GaugeFunction(Collector):
    """A gauge whose value is asked for when it is scraped. To be used where a component already keeps the number."""

    def __init__(self, name: str, documentation: str, *, labels: tuple[str, ...] = ()) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels

    def values(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """(label values, value) of each child."""
        raise NotImplementedError

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The family without its values."""
        yield GaugeMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The family with its values."""
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in self.values():
            family.add_metric(labels, value)
        yield family


class _RpcCollector(Collector):
    def __init__(self, methods: dict[str, MethodMetrics]) -> None:
        self._methods = methods

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        if not self._methods:
            return  # a process without services, whose workers may have some: a family must be shown once
        labels = ("grpc_type", "grpc_service", "grpc_method")
        started = CounterMetricFamily("grpc_server_started", "Calls that have begun.", labels=labels)
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls that have ended, by code.", labels=(*labels, "grpc_code")
        )
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "How long calls took, in seconds.", labels=labels
        )
        for metrics in tuple(self._methods.values()):
            values = (metrics.kind, metrics.service, metrics.method)
            started.add_metric(values, metrics.started)
            for code, calls in metrics.codes:
                handled.add_metric((*values, _code_name(code)), calls)
            handling.add_metric(values, metrics.buckets, metrics.seconds)
        yield started
        yield handled
        yield handling


def _code_name(code: grpc.StatusCode) -> str:
    """As the ecosystem's dashboards have it: "OK", "NotFound", "DeadlineExceeded"."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
