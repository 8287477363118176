"""In the main process: the workers, what they ask for, and what they are told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cqrs.commit.command import CallMetadataPairs, Submission
from cqrs.errors import ConfigurationError, ServiceError
from cqrs.serving.health import Readiness
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.workers.fork import ForkedWorker
from cqrs.workers.link import Link
from cqrs.workers.ports import reserved
from cqrs.workers.remote import STREAM_ENDS
from cqrs.workers.requests import Method, Request, Stream

_METRICS_SECONDS = 1.0
"""A worker that does not tell its metrics by then is shown as it was at the last scrape."""

_STOP_SECONDS = 5.0
"""Beyond the time for the drain: what a worker may take to end before it is killed."""

_LAST_BREATH_SECONDS = 2.0
"""What a worker that has closed its link may take to end before it is killed."""

_log = get_logger(__name__)


class WorkerFailed(Exception):
    """A worker process has ended by itself."""


class WorkerPool:
    """All workers of this process."""

    def __init__(
        self,
        forked: Sequence[ForkedWorker],
        methods: Sequence[Method],
        submit: Callable[[Submission], None],
        readiness: Readiness,
    ) -> None:
        """Take the workers over.

        Args:
            forked: the workers.
            methods: what they name by number when they send requests.
            submit: takes requests in; raises ServiceError for one that it refuses.
            readiness: what the workers' health service tells.
        """
        self._workers = [_Worker(worker, methods, submit) for worker in forked]
        self._readiness = readiness
        self.collector: Collector = _WorkerMetrics(self._workers)
        """The workers' metrics, each with the label `worker`, as of the last `refresh_metrics`."""

    async def start(self, listen: str, seconds: float) -> str:
        """Have the workers serve, all on one port; returns the address, HOST:PORT, once all do.

        Args:
            listen: the address, HOST:PORT; port 0 is any free one.
            seconds: how long that may take.

        Raises:
            ConfigurationError: an address cannot be had, and the like.
            WorkerFailed: one has ended, or does not serve in time.
        """
        with reserved(listen, len(self._workers)) as address:
            for worker in self._workers:
                await worker.open()
                self._tell_readiness(worker)
                worker.link.send("serve", address)
            try:
                async with asyncio.timeout(seconds):
                    addresses = [await worker.serving for worker in self._workers]
            except TimeoutError:
                raise WorkerFailed(f"a worker does not serve after {seconds:g} s") from None
        return addresses[0]

    async def watch(self, stop: StopSignal) -> None:
        """Until `stop`: tell the workers each change of readiness, and fail when one of them has ended.

        Raises:
            WorkerFailed: one has ended. What it was asked cannot be answered any more: the process should end too.
        """
        stopping = asyncio.ensure_future(stop.wait())
        lost = [asyncio.ensure_future(worker.ended.wait()) for worker in self._workers]
        try:
            while not stop.is_set():
                changed = asyncio.ensure_future(self._readiness.next_change.wait())
                for worker in self._workers:
                    self._tell_readiness(worker)
                await asyncio.wait([stopping, changed, *lost], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for worker in self._workers:
                    if worker.ended.is_set():
                        raise WorkerFailed(worker.how_it_ended)
        finally:
            for task in (stopping, *lost):
                task.cancel()

    def tell_head(self, position: int) -> None:
        """Tell the workers how far the log has got."""
        for worker in self._workers:
            worker.tell_head(position)

    async def refresh_metrics(self) -> None:
        """Ask the workers for their metrics."""
        await asyncio.gather(*(worker.refresh_metrics(_METRICS_SECONDS) for worker in self._workers))

    async def drain(self, seconds: float) -> None:
        """Have the workers finish their calls, for `seconds` at most, and end. One that does not is killed."""
        for worker in self._workers:
            worker.link.send("drain")
        await asyncio.gather(*(worker.end(seconds + _STOP_SECONDS) for worker in self._workers))

    def kill(self) -> None:
        """End those that still run, at once."""
        for worker in self._workers:
            worker.kill()

    def _tell_readiness(self, worker: _Worker) -> None:
        components = [tuple(component) for component in self._readiness.components]
        worker.link.send("readiness", components)


class _Worker:
    """One worker process."""

    def __init__(self, forked: ForkedWorker, methods: Sequence[Method], submit: Callable[[Submission], None]) -> None:
        self.number = forked.number
        self.pid = forked.pid
        self.link = Link(self._message, self._lost, self._caught_up)
        self.ended = asyncio.Event()
        self.how_it_ended = ""
        """Once `ended` is set."""
        self.serving: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.families: list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]] = []
        self._end = forked.end
        self._methods = methods
        self._submit = submit
        self._streams: dict[int, Stream] = {}
        self._answers: list[tuple[Any, ...]] = []
        self._untold_head: int | None = None
        self._told = asyncio.Event()
        self._status: int | None = None
        """As os.waitpid has it, once the process is no more."""
        self._burying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect."""
        await self.link.open(self._end)

    def tell_head(self, position: int) -> None:
        """Tell how far the log has got: the newest position only, to one that does not keep up."""
        if self.link.is_behind:
            self._untold_head = position
        else:
            self.link.send("head", position)

    async def refresh_metrics(self, seconds: float) -> None:
        """Ask for the metrics, and wait for them."""
        self._told.clear()
        self.link.send("metrics")
        try:
            async with asyncio.timeout(seconds):
                await self._told.wait()
        except TimeoutError:
            _log.warning("a worker does not tell its metrics", worker=self.number, pid=self.pid)

    async def end(self, seconds: float) -> None:
        """Wait until it has ended, and kill it if it has not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            _log.error("a worker does not end and is killed", worker=self.number, pid=self.pid)
            self.kill()
        else:
            if self._status:
                _log.error("a worker failed while it stopped", how=self.how_it_ended)

    def kill(self) -> None:
        """End it at once, and take leave of it."""
        if self._burying is not None:
            self._burying.cancel()
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(0)
        self.link.close()

    def _message(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "requests":
            for each in message[1]:
                if each[0] == STREAM_ENDS:
                    self._streams.pop(each[1], None)
                else:
                    self._take(*each)
        elif kind == "metrics":
            self.families = message[1]
            self._told.set()
        elif kind == "serving":
            self.serving.set_result(message[1])
        elif kind == "failed":
            self._fail(ConfigurationError(message[1]))

    def _take(
        self,
        number: int,
        method: int,
        request: bytes,
        call_metadata: CallMetadataPairs,
        deadline: float | None,
        stream: int,
    ) -> None:
        of = self._streams.setdefault(stream, Stream()) if stream else None
        taken = Request(number, self._methods[method], request, call_metadata, deadline, of, self._answer)
        try:
            self._submit(taken)
        except ServiceError as error:
            taken.refuse(error)

    def _answer(self, answer: tuple[Any, ...]) -> None:
        """Send it, together with those that follow in the same turn of the loop."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._flush)
        self._answers.append(answer)

    def _flush(self) -> None:
        self.link.send("answers", self._answers)
        self._answers = []

    def _caught_up(self) -> None:
        if self._untold_head is not None:
            self.link.send("head", self._untold_head)
            self._untold_head = None

    def _lost(self) -> None:
        if self._status is None:
            self._burying = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        """It has closed its end: learn how it ended."""
        give_up = time.monotonic() + _LAST_BREATH_SECONDS
        while not self._reap(os.WNOHANG):
            await asyncio.sleep(0.01)
            if time.monotonic() > give_up:
                _log.error("a worker has closed its link, does not end and is killed", worker=self.number, pid=self.pid)
                os.kill(self.pid, signal.SIGKILL)
                self._reap(0)
        self.how_it_ended = f"worker {self.number} (process {self.pid}) {_how(self._status or 0)}"
        self._fail(WorkerFailed(self.how_it_ended))
        self.ended.set()

    def _reap(self, options: int) -> bool:
        """Whether the process is no more."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._status = status
        return self._status is not None

    def _fail(self, error: Exception) -> None:
        if not self.serving.done():
            self.serving.set_exception(error)
            self.serving.exception()  # whether somebody waits for it is not this one's business


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with status {code}"


class _WorkerMetrics(Collector):
    """What the workers measure, as if it were measured here."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers

    def describe(self) -> Iterator[Metric]:
        """Nothing: what the workers have is known when they have told it."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families of all workers, merged by name."""
        merged: dict[str, Metric] = {}
        for worker in self._workers:
            for name, documentation, kind, samples in worker.families:
                family = merged.setdefault(name, Metric(name, documentation, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "worker": str(worker.number)}, value)
        yield from merged.values()
