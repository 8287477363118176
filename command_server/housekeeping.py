"""Pruning of old command outcomes, in chunks between batches."""

from __future__ import annotations

import time
from functools import partial

from cqrs.commit.committer import Committer
from cqrs.commit.metrics import CommitMetrics
from cqrs.serving.logging import get_logger
from cqrs.serving.stop import StopSignal
from cqrs.store.port import CommitUncertain, EventStore, StoreError

_log = get_logger(__name__)

_CHUNK = 1000
_INTERVAL_SECONDS = 60.0
_PAUSE_BETWEEN_CHUNKS_SECONDS = 0.05
_MICROS_PER_DAY = 86_400 * 1_000_000


async def prune_results(
    committer: Committer, store: EventStore, metrics: CommitMetrics, keep_days: float, stop: StopSignal
) -> None:
    """Every minute until `stop`: delete outcomes older than `keep_days`, a thousand at a time."""
    while not stop.is_set():
        before = time.time_ns() // 1000 - int(keep_days * _MICROS_PER_DAY)
        try:
            pruned = await committer.on_writer_thread(partial(store.prune_results, before, _CHUNK))
        except (StoreError, CommitUncertain) as error:
            metrics.store_errors.inc()
            _log.warning("pruning of old command outcomes failed, trying again", error=str(error))
            pruned = 0
        metrics.pruned_results.inc(pruned)
        await stop.wait_for(_PAUSE_BETWEEN_CHUNKS_SECONDS if pruned == _CHUNK else _INTERVAL_SECONDS)
