"""Forking worker processes, before the process has an event loop or a thread."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cqrs.broker.tether import die_with_parent
from cqrs.serving.logging import get_logger
from cqrs.serving.process import EXIT_SOFTWARE

_log = get_logger(__name__)


class ForkedWorker(NamedTuple):
    """A worker process, as its parent knows it."""

    number: int
    """0, 1, 2, …"""
    pid: int
    end: socket.socket
    """The parent's end of the pair of sockets."""


def fork_workers(count: int, run: Callable[[int, socket.socket], int]) -> tuple[ForkedWorker, ...]:
    """Fork `count` workers; each does `run(number, its end of a pair of sockets)` and ends with the status returned.

    To be called on the main thread of a process that has no other, and no event loop: what threads hold is not there
    after a fork. Workers leave signals that stop a process to their parent, who tells them; when it dies, they do.

    Raises:
        RuntimeError: the process has several threads.
    """
    if _threads() > 1:
        raise RuntimeError("workers must be forked before there are threads")
    parent = os.getpid()
    workers: list[ForkedWorker] = []
    for number in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = EXIT_SOFTWARE
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                die_with_parent(parent)
                ours.close()
                for worker in workers:
                    worker.end.close()
                status = run(number, theirs)
            except BaseException:  # noqa: BLE001 - the process's last resort: it ends as a log line and a status
                _log.critical("a worker stopped by a defect", worker=number, exc_info=True)
            finally:
                sys.stderr.flush()
                # Not sys.exit: what the parent's stack has to unwind is the parent's.
                os._exit(status)
        theirs.close()
        workers.append(ForkedWorker(number, pid, ours))
    return tuple(workers)


def _threads() -> int:
    """How many threads the process has, those of libraries that are not Python included."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:  # not Linux
        return threading.active_count()
