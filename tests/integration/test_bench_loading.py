from __future__ import annotations

from pathlib import Path

import pytest

from bench.loading import measure_loading
from tests.integration.logs import new_write_db


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_bench_measures_loading_with_snapshots_and_without(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = new_write_db(tmp_path) if database == "sqlite" else str(request.getfixturevalue("postgresql_write_db"))
    for events in (1, 250):
        times = measure_loading(url, events, rounds=2)
        assert times.without_snapshots > 0
        assert times.with_snapshots > 0
