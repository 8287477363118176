"""What the exit status of `orderstream` means. Scripts rely on the numbers: never change one.

From 64 on they are those of BSD's sysexits.h; 128 + n is the shell's convention for "ended by signal n".
"""

from __future__ import annotations

import textwrap
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses, each with its meaning in `MEANINGS`."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    IN_USE = 75
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.REFUSED: "refused, rows of an import were refused, or a check (verify, the demo) found something wrong",
    ExitCode.USAGE: "wrong use of the command line",
    ExitCode.NOT_FOUND: "what was asked for does not exist",
    ExitCode.CONFLICT: "version conflict, or the read model has not caught up yet",
    ExitCode.DATA: "the file is not in a format that can be read",
    ExitCode.NO_INPUT: "the file or folder does not exist or cannot be read",
    ExitCode.UNAVAILABLE: "a server cannot be reached, is overloaded or too slow; or a check was left undone",
    ExitCode.INTERNAL: "a defect, here or in a server",
    ExitCode.IN_USE: "the data directory or a port is in use by another process",
    ExitCode.CONFIG: "an operator must act: a setting, a schema or a history is wrong; the message says how",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C) before it was done",
    ExitCode.TERMINATED: "ended by SIGTERM before it was done",
}


def exit_code_help() -> str:
    """The table of exit statuses, a line each, for the root help page."""
    return "\n".join(
        textwrap.fill(f"{code.value:>3}  {meaning}", width=76, subsequent_indent=" " * 5)
        for code, meaning in MEANINGS.items()
    )
