"""The command line as a whole: help pages, exit statuses, quick starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from cli.app import app
from cli.exit_codes import MEANINGS, ExitCode, exit_code_help

PASSED_ON = {("serve", "command"), ("serve", "query"), ("serve", "projector")}
"""The servers' own settings parsers answer their --help."""


def pages() -> Iterator[tuple[str, ...]]:
    yield ()
    root = typer.main.get_command(app)
    for name, command in getattr(root, "commands").items():  # noqa: B009 - typer's group type is private
        yield (name,)
        for inner in getattr(command, "commands", ()):
            if (name, inner) not in PASSED_ON:
                yield (name, inner)


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda page: " ".join(page) or "root")
def test_every_help_page_has_an_example(page: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*page, "--help"], prog_name="orderstream")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert "  orderstream" in result.output


def test_every_exit_status_is_documented_on_the_root_help_page() -> None:
    assert set(MEANINGS) == set(ExitCode)
    output = CliRunner().invoke(app, ["--help"]).output
    for line in exit_code_help().splitlines():
        assert line.strip() in output


def test_showing_help_imports_neither_grpc_nor_a_database() -> None:
    script = (
        "import sys; from cli.app import main; sys.argv = ['orderstream', 'orders', 'create', '--help']; main(); "
        "print([name for name in ('grpc', 'sqlalchemy', 'nats', 'structlog') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stderr.strip() == "[]"


def test_wrong_use_ends_with_2_and_an_unreachable_server_with_69() -> None:
    assert CliRunner().invoke(app, ["up", "--exit"]).exit_code == ExitCode.USAGE
    assert CliRunner().invoke(app, ["orders", "get"]).exit_code == ExitCode.USAGE
    away = CliRunner().invoke(app, ["orders", "get", "x", "--query-server", "127.0.0.1:9"])
    assert away.exit_code == ExitCode.UNAVAILABLE


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
