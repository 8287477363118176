"""Write the pages of docs/reference/ from what they describe.

python -m tools.reference            writes the pages
python -m tools.reference --check    changes nothing; status 1 and a list if a page is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from pydantic.fields import FieldInfo

from command_server.settings import CommandServerSettings
from cqrs.serving.settings import ServerSettings
from cqrs.serving.settings_loader import env_name, flag_name
from projector.settings import ProjectorSettings
from query_server.settings import QueryServerSettings
from tools.contract import error_reasons
from tools.generate import ROOT

_ABOUT_ERRORS = """\
An error is a gRPC status with a `google.rpc.Status` in its details. Its first detail is a `google.rpc.ErrorInfo` with
the `domain` "orderstream", a `reason` from the tables below, and `metadata`. Clients decide by the reason; texts may
change. A `google.rpc.RetryInfo`, where there is one, says that a retry is worth it, and when. For people, the text
begins with the reason.

Errors that gRPC itself makes have no details: UNAVAILABLE where no server answers (retry), UNIMPLEMENTED for a method
that the server does not have, DEADLINE_EXCEEDED and CANCELLED on the client's side (for a command: outcome unknown,
repeat it with its request id), and RESOURCE_EXHAUSTED "message larger than max" for a request over the server's
`max_message_bytes` or an answer over the client's limit (do not retry: make it smaller).
"""

_ABOUT_SETTINGS = """\
Generated from the settings classes by `make gen`: edit those.

Each can be given as a flag of `orderstream serve command|projector|query`, as an environment variable, or in a TOML
file (`--config FILE` or `ORDERSTREAM_CONFIG`; a key is the flag's name with `_` for `-`, keys in a table named after a
server are for that server only). A flag wins over the environment, and that over the file.
"""

SERVERS: tuple[type[ServerSettings], ...] = (CommandServerSettings, ProjectorSettings, QueryServerSettings)


class Page(NamedTuple):
    """A generated page."""

    file: str
    """Its path in the repository."""
    render: Callable[[], str]
    """Makes its text."""


def render_errors() -> str:
    """All reasons of errors, a table for each enum."""
    parts = [
        "# Errors\n",
        "Generated from the `errors.proto` files by `make gen`: edit those.\n",
        _ABOUT_ERRORS,
    ]
    for enum, reasons in groupby(error_reasons(), key=lambda reason: reason.enum):
        parts.append(f"## {enum}\n")
        parts.append(_table(("reason", "code", "meaning"), ((f"`{r.name}`", r.code, r.text) for r in reasons)))
    return "\n".join(parts)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def render_settings() -> str:
    """The settings of all servers: first those that they share, then what each adds or has another default for."""
    shared = {
        name: field
        for name, field in ServerSettings.model_fields.items()
        if all(cls.model_fields[name].default == field.default for cls in SERVERS)
    }
    parts = ["# Settings of the servers\n", _ABOUT_SETTINGS, "## Every server\n", _rows_table(shared)]
    for cls in SERVERS:
        parts += [f"## {cls.server.capitalize()}\n", _settings_table(cls, shared)]
    return "\n".join(parts)


def _settings_table(cls: type[ServerSettings], shared: Mapping[str, FieldInfo]) -> str:
    return _rows_table({name: field for name, field in cls.model_fields.items() if name not in shared})


def _rows_table(fields: Mapping[str, FieldInfo]) -> str:
    rows = (
        (f"`{flag_name(name)}`", f"`{env_name(name)}`", _shown(field.default), field.description or "")
        for name, field in fields.items()
    )
    return _table(("flag", "environment", "default", "meaning"), rows)


def _shown(default: object) -> str:
    if default is None or default == "":
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


PAGES = (
    Page("docs/reference/errors.md", render_errors),
    Page("docs/reference/settings.md", render_settings),
)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        file, text = ROOT / page.file, page.render()
        if not file.exists() or file.read_text() != text:
            stale.append(page.file)
            if not check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for name in stale:
        print(f"{name}: {'out of date; run `make gen` and commit the result' if check else 'written'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
