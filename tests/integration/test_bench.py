"""The bench measures what it says, and leaves nothing behind."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import grpc
import pytest

from bench.chart import Line, line_chart
from bench.echo_server import METHOD
from bench.load import LoadClient, LoadFailed, LoadResult, Target, read_requests, write_requests
from bench.pairs import Pair
from bench.system import PartFailed, running

ROOT = Path(__file__).resolve().parents[2]


def with_echo(scratch: Path, work: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        ready = str(scratch / "echo.json")
        async with running("echo", scratch, "-m", "bench.echo_server", ready) as echo:
            await work(echo.address)

    asyncio.run(run())


@pytest.mark.parametrize("in_flight", [1, 6, 64])
def test_every_call_of_a_load_is_answered_and_counted(in_flight: int, tmp_path: Path) -> None:
    async def work(address: str) -> None:
        requests = [b"x" * size for size in (0, 1, 50, 300)]
        result = await LoadClient(tmp_path).call(Target([address], METHOD, requests), 1_000, in_flight)

        assert result.answer_bytes == 250 * sum(map(len, requests))
        assert result.calls_per_second > 0
        assert 0 < result.p50_ms <= result.p99_ms

    with_echo(tmp_path, work)


def test_a_load_heeds_the_window_that_the_server_gives_it(tmp_path: Path) -> None:
    async def work(address: str) -> None:
        result = await LoadClient(tmp_path).call(Target([address], METHOD, [b"x" * 16_000]), 1_000, 64)

        assert result.answer_bytes == 1_000 * 16_000

    with_echo(tmp_path, work)


def test_calls_that_fail_have_no_answer_bytes(tmp_path: Path) -> None:
    async def serve() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            target = Target([f"127.0.0.1:{port}"], "/no.Such/Method", [b"request"])
            result = await LoadClient(tmp_path).call(target, 100, 4)
        finally:
            await server.stop(None)

        assert result.answer_bytes == 0

    asyncio.run(serve())


def test_a_load_on_nobody_fails(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        asyncio.run(LoadClient(tmp_path).call(Target(["127.0.0.1:1"], METHOD, [b""]), 100, 1))
    with pytest.raises(LoadFailed):
        asyncio.run(LoadClient(tmp_path).stream(Target(["127.0.0.1:1"], METHOD, [b""]), 100, 1, 1))


def test_requests_come_out_of_their_file_as_they_went_in(tmp_path: Path) -> None:
    requests = [b"", b"x", b"y" * 70_000]

    write_requests(tmp_path / "requests", requests)

    assert read_requests(tmp_path / "requests") == requests


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


def test_what_a_call_takes_beyond_echo_and_commit_is_compared_round_by_round() -> None:
    def runs(*p50s: float) -> list[LoadResult]:
        return [LoadResult(100, p50, 20.0, 0) for p50 in p50s]

    pair = Pair(1, call=runs(3.0, 9.0, 4.0), echo=runs(1.0, 1.0, 1.0), commit_ms=[1.5, 7.5, 2.0])

    assert pair.figures("x")["x.c1.p50_beyond_echo_and_commit_ms"] == 0.5


def test_a_chart_is_the_same_svg_each_time_and_higher_values_stand_higher() -> None:
    def chart() -> str:
        lines = [Line("one & two", [(10, 5.0), (100, 7.0), (1000, 20.0)]), Line("b", [(10, 1.0), (1000, 1.0)])]
        return line_chart("Title <1>", "x", "y", lines)

    assert chart() == chart()
    svg = ET.fromstring(chart())  # noqa: S314 - our own
    dots = [dot for dot in svg.iter("{http://www.w3.org/2000/svg}circle") if dot.get("class") == "dot c0"]
    places = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in dots]
    assert len(places) == 3
    assert all(left[0] < right[0] and left[1] > right[1] for left, right in pairwise(places))
    assert "prefers-color-scheme:dark" in chart()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_whole_bench_runs_and_writes_one_flat_object_of_numbers(tmp_path: Path) -> None:
    result = bench("--output", str(tmp_path / "bench.json"))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert all(isinstance(value, int | float) for value in figures.values())
    assert {
        "create_order.sqlite.c64.ratio_to_echo",
        "create_order.sqlite.c1.p99_ms",
        "create_order.sqlite.c1.p50_beyond_echo_and_commit_ms",
        "create_order.sqlite.c16.calls_per_second",
        "create_order.postgresql.c64.ratio_to_echo",
        "create_order.postgresql.servers",
        "update_status.sqlite.c64.ratio_to_echo",
        "update_status.cold.sqlite.c64.ratio_to_echo",
        "bulk.sqlite.ratio_to_unary",
        "get_order.cached.c64.ratio_to_echo",
        "commit_to_visible.p50_ms",
        "fsync_ms",
    } <= figures.keys()
    assert "ratio to echo" in result.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_bench_draws_what_things_cost_as_the_log_grows(tmp_path: Path) -> None:
    result = bench("--growth", "--output", str(tmp_path / "bench.json"), "--charts", str(tmp_path))

    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert {
        "growth.events_1000.create_order.c64.calls_per_second",
        "growth.events_10000.bulk.commands_per_second",
        "memory.ratio_to_a_tenth_of_the_commands",
        "loading.events_1000.with_snapshots_ms",
    } <= figures.keys()
    for chart in ("commands.svg", "loading.svg"):
        assert ET.parse(tmp_path / chart).getroot().tag.endswith("svg")  # noqa: S314 - our own
