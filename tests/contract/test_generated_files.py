"""What is generated is what its sources give, and the contract passes its linter."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import generate, reference

ROOT = generate.ROOT


def test_gen_is_exactly_what_the_contract_generates(tmp_path: Path) -> None:
    generate.generate(tmp_path)

    assert generate.drift(generate.files_below(ROOT / "gen"), generate.files_below(tmp_path)) == []


def test_drift_names_what_is_missing_changed_and_orphaned() -> None:
    found = {"same": b"1", "changed": b"1", "orphan": b"1"}
    wanted = {"same": b"1", "changed": b"2", "new": b"1"}

    assert generate.drift(found, wanted) == ["changed: out of date", "new: missing", "orphan: of no .proto"]


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.file)
def test_reference_pages_are_exactly_what_the_code_gives(page: reference.Page) -> None:
    assert (ROOT / page.file).read_text() == page.render()


@pytest.mark.parametrize("arguments", [["lint"], ["format", "--diff", "--exit-code"]], ids=["lint", "format"])
def test_the_contract_passes_buf(arguments: list[str], tmp_path: Path) -> None:
    buf = Path(sys.executable).parent / "buf"

    result = subprocess.run(
        [buf, *arguments],
        cwd=ROOT,
        env={"BUF_CACHE_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
