"""Forking workers, in a process of its own: this one has threads."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from cqrs.workers.fork import fork_workers


def forking(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_process_with_threads_does_not_fork() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="before there are threads"):
            fork_workers(1, lambda _number, _end: 0)
    finally:
        go.set()
        thread.join()


def test_each_worker_has_a_pair_of_sockets_of_its_own_and_ends_with_the_status_that_its_work_returns() -> None:
    done = forking(
        """
        import os
        from cqrs.workers.fork import fork_workers

        def work(number, end):
            end.sendall(f"worker {number}".encode())
            return 10 + number

        for worker in fork_workers(3, work):
            said = b""
            while part := worker.end.recv(100):
                said += part
            print(worker.number, said.decode(), os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]))
        """
    )
    assert done.stdout.splitlines() == ["0 worker 0 10", "1 worker 1 11", "2 worker 2 12"], done.stderr


def test_a_worker_that_fails_says_why_and_ends_with_the_status_of_a_defect() -> None:
    done = forking(
        """
        import os
        from cqrs.serving.logging import configure_logging
        from cqrs.workers.fork import fork_workers

        def work(number, end):
            configure_logging("info", "text", process="worker")
            raise ZeroDivisionError("by nothing")

        (worker,) = fork_workers(1, work)
        print(os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]))
        """
    )
    assert done.stdout.splitlines()[-1] == "70"
    assert "a worker stopped by a defect" in done.stdout + done.stderr
    assert "ZeroDivisionError: by nothing" in done.stdout + done.stderr
