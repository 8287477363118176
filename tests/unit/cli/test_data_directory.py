"""The data directory's lock and the ports."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.failures import InUse, NotUsable
from cli.supervisor.data_directory import DataDirectory
from cli.supervisor.ports import ANY_PORTS, LOOPBACK, Ports


def test_a_data_directory_is_for_one_run_at_a_time_and_the_refusal_names_the_process(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    with directory.lock():
        with pytest.raises(InUse, match=f"in use by process {os.getpid()}"), DataDirectory(tmp_path / "data").lock():
            pytest.fail("two runs have the same directory")
        assert directory.holder() == os.getpid()
    with directory.lock():
        assert directory.holder() == os.getpid()
    assert directory.holder() is None


def test_a_child_that_inherits_the_lock_keeps_the_directory_until_it_ends(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.create()
    with directory.lock() as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
        # As if this process, the supervisor, had been killed: nothing is written into the file on the way out.
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    directory.lock_file.write_bytes(ended.stdout)
    with directory.lock_file.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.communicate()
    with DataDirectory(tmp_path).lock():
        pass


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotUsable, match="cannot be used as data directory"):
        DataDirectory(tmp_path / "file" / "data").create()


def test_a_port_in_use_is_refused_with_the_option_that_changes_it() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InUse, match=f"port {port} is in use") as refusal:
            ANY_PORTS._replace(query_metrics=port).check_free()
    assert "--query-metrics-port PORT" in refusal.value.hint


def test_a_port_cannot_be_given_twice() -> None:
    with pytest.raises(InUse, match="port 50051 is given twice"):
        Ports()._replace(nats=50051).check_free()


def test_any_ports_are_always_free() -> None:
    ANY_PORTS.check_free()
