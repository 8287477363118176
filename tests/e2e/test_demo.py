"""The demo: `orderstream up --demo --exit`, as `make run ARGS=--exit` calls it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.installation import ENVIRONMENT, ORDERSTREAM, processes_of


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_shows_the_files_totals_and_a_second_run_finds_all_of_it_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [*ORDERSTREAM, "up", "--demo", "--exit", "--any-port", "--data", str(data), "-o", "json"]
    for note in (
        "2,357 customers imported (0 already there), 6,919 orders imported (0 already there), 0 refused",
        "all is already there: 2,357 customers and 6,919 orders; nothing was changed",
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stderr
        assert note in done.stderr
        assert "the dashboard shows what the file has: 6,919 orders of 2,357 customers, USD 244,091.94" in done.stderr
        shown = json.loads(done.stdout)
        assert shown["dashboard"]["order_count"] == "6919"
        assert shown["dashboard"]["customer_count"] == "2357"
        (currency,) = shown["dashboard"]["currencies"]
        assert currency["revenue"] == {"currency_code": "USD", "units": "244091", "nanos": 940_000_000}
        assert shown["dashboard"]["freshness"]["as_of_position"] == "9276"
        assert processes_of(data) == []
        assert list((data / "run").iterdir()) == []
