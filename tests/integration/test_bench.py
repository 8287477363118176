"""The bench measures what it says, and leaves nothing behind."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.echo_server import METHOD
from bench.load import H2Load, LoadClient, LoadFailed, LoadResult, PythonClient, Target
from bench.scenarios import Pair
from bench.system import PartFailed, running

ROOT = Path(__file__).resolve().parents[2]


def h2load(scratch: Path) -> LoadClient:
    program = shutil.which("h2load")
    if program is None:
        pytest.skip("h2load is not installed (Debian: nghttp2-client)")
    return H2Load(program, scratch)


def with_echo(scratch: Path, work: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        ready = str(scratch / "echo.json")
        async with running("echo", scratch, "-m", "bench.echo_server", ready) as address:
            await work(address)

    asyncio.run(run())


@pytest.mark.parametrize("make_client", [PythonClient, h2load], ids=["python", "h2load"])
@pytest.mark.parametrize("in_flight", [1, 64])
def test_every_call_of_a_load_is_answered_and_counted(
    make_client: Callable[[Path], LoadClient], in_flight: int, tmp_path: Path
) -> None:
    async def work(address: str) -> None:
        result = await make_client(tmp_path).run(Target(address, METHOD, b"x" * 50), 130, in_flight)

        assert result.answer_bytes == 130 * 50
        assert result.calls_per_second > 0
        assert 0 < result.p50_ms <= result.p99_ms

    with_echo(tmp_path, work)


@pytest.mark.parametrize("make_client", [PythonClient, h2load], ids=["python", "h2load"])
def test_a_load_on_nobody_fails(make_client: Callable[[Path], LoadClient], tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        asyncio.run(make_client(tmp_path).run(Target("127.0.0.1:1", METHOD, b""), 100, 1))


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    async def start() -> None:
        async with running("broken", tmp_path, "-c", "raise SystemExit('no luck')"):
            pytest.fail("it must not be taken for running")

    with pytest.raises(PartFailed, match="no luck"):
        asyncio.run(start())


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    def runs(*rates: float) -> list[LoadResult]:
        return [LoadResult(rate, 1.0, 2.0, 0) for rate in rates]

    figures = Pair(64, call=runs(50, 90, 10), echo=runs(100, 100, 100)).figures("x")

    assert figures["x.c64.ratio_to_echo"] == 0.5
    assert figures["x.c64.calls_per_second"] == 50
    assert figures["x.echo.c64.p99_ms"] == 2.0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_whole_bench_runs_and_writes_one_flat_object_of_numbers(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--output", str(tmp_path / "bench.json")],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert all(isinstance(value, int | float) and value >= 0 for value in figures.values())
    assert {
        "create_order.sqlite.c64.ratio_to_echo",
        "create_order.sqlite.c1.p99_ms",
        "create_order.sqlite.c16.calls_per_second",
        "get_order.cached.c64.ratio_to_echo",
        "commit_to_visible.p50_ms",
    } <= figures.keys()
    assert "ratio to echo" in result.stdout
