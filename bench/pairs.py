"""A call and the bare echo in turn: what else the machine does hits both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from bench.echo_server import METHOD as ECHO
from bench.load import LoadClient, LoadFailed, LoadResult, Target

CommitTime = Callable[[], Awaitable[float]]
"""Measures one durable commit by itself, in milliseconds."""


class Turns(NamedTuple):
    """How often and how long a call and the echo take turns."""

    rounds: int
    seconds: float
    """Of one turn, about."""


class Call(NamedTuple):
    """What is measured."""

    sample: bytes
    """A request: the echo gets one of this size."""
    prepare: Callable[[int], Awaitable[Target]]
    """Gets everything ready for a run of so many calls."""
    verify: Callable[[LoadResult, int], Awaitable[None]]
    """Makes sure that a run of so many calls did what it should; raises LoadFailed."""


@dataclass
class Pair:
    """Runs of a call and of the echo with a request of the same size, in turn."""

    in_flight: int
    call: list[LoadResult] = field(default_factory=list)
    echo: list[LoadResult] = field(default_factory=list)
    commit_ms: list[float] = field(default_factory=list)
    """One durable commit by itself, in each round; empty if it was not measured."""

    def figures(self, name: str) -> dict[str, float]:
        """Medians over the rounds, by their names; a ratio or a difference is the median of each round's."""
        figures = {}
        for who, runs in ((name, self.call), (f"{name}.echo", self.echo)):
            prefix = f"{who}.c{self.in_flight}"
            figures[f"{prefix}.calls_per_second"] = median(run.calls_per_second for run in runs)
            figures[f"{prefix}.p50_ms"] = median(run.p50_ms for run in runs)
            figures[f"{prefix}.p99_ms"] = median(run.p99_ms for run in runs)
        ratios = [a.calls_per_second / b.calls_per_second for a, b in zip(self.call, self.echo, strict=True)]
        figures[f"{name}.c{self.in_flight}.ratio_to_echo"] = median(ratios)
        if self.commit_ms:
            rounds = zip(self.call, self.echo, self.commit_ms, strict=True)
            beyond = [call.p50_ms - echo.p50_ms - commit for call, echo, commit in rounds]
            figures[f"{name}.c{self.in_flight}.commit_ms"] = median(self.commit_ms)
            figures[f"{name}.c{self.in_flight}.p50_beyond_echo_and_commit_ms"] = median(beyond)
        return figures


class Yardstick:
    """The load client and the echo."""

    def __init__(self, client: LoadClient, echo_address: str) -> None:
        self.client = client
        self._echo_address = echo_address

    async def measure(self, call: Call, in_flight: int, turns: Turns, commit_time: CommitTime | None = None) -> Pair:
        """Measure a call beside the echo, after a warm-up that does not count.

        Args:
            call: what to measure.
            in_flight: how many calls wait at a time.
            turns: how often and how long.
            commit_time: where it matters: asked in each round, while nothing else is done.
        """
        echo = self._echo(call.sample)
        warm_up = 20 * in_flight + 100
        echo_rate = (await self.run(echo, warm_up, in_flight)).calls_per_second
        rate = (await self.run(call, warm_up, in_flight)).calls_per_second
        pair = Pair(in_flight)
        for _ in range(turns.rounds):
            pair.echo.append(await self.run(echo, max(warm_up, round(echo_rate * turns.seconds)), in_flight))
            pair.call.append(await self.run(call, max(warm_up, round(rate * turns.seconds)), in_flight))
            if commit_time is not None:
                pair.commit_ms.append(await commit_time())
        return pair

    async def run(self, call: Call, calls: int, in_flight: int) -> LoadResult:
        """One run, verified."""
        result = await self.client.call(await call.prepare(calls), calls, in_flight)
        await call.verify(result, calls)
        return result

    def _echo(self, request: bytes) -> Call:
        target = Target([self._echo_address], ECHO, [request])

        async def prepare(_calls: int) -> Target:
            return target

        async def verify(result: LoadResult, calls: int) -> None:
            if result.answer_bytes != calls * len(request):
                raise LoadFailed(f"the echo answered {result.answer_bytes} bytes to {calls} × {len(request)}")

        return Call(request, prepare, verify)
