"""Failpoints: named places where a test can make a failure happen, in this process or, by environment, in another.

`ORDERSTREAM_FAILPOINTS="store.after_commit=kill:3"` kills the process with SIGKILL when the place is reached for the
third time; `=raise:1` raises Triggered there, `=raise:1:5` five times in a row; `=pause:1:FILE` waits until FILE exists
(30 s at most). Without the variable and without `arm`, reaching a failpoint is one look-up in an empty dictionary.
After FreeBSD's fail(9).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_LIMIT_SECONDS = 30.0

_armed: dict[str, Callable[[], None]] = {}


class Triggered(Exception):
    """A failpoint was told to fail here."""


def reach(name: str) -> None:
    """Mark a place. Does what was armed for it, else nothing."""
    action = _armed.get(name)
    if action is not None:
        action()


@contextmanager
def arm(name: str, action: Callable[[], None]) -> Iterator[None]:
    """Do `action` whenever the place is reached, while the context is open."""
    _armed[name] = action
    try:
        yield
    finally:
        del _armed[name]


def fail() -> None:
    """An action for `arm`: raise Triggered."""
    raise Triggered


def arm_from_environment(text: str | None = None) -> None:
    """Arm what ORDERSTREAM_FAILPOINTS (or `text`) says: `place=kill|raise|pause:N[:TIMES|:FILE]`, separated by commas.

    Raises:
        ValueError: it cannot be read.
    """
    text = os.environ.get("ORDERSTREAM_FAILPOINTS", "") if text is None else text
    for part in filter(None, text.split(",")):
        name, _, spec = part.partition("=")
        verb, _, rest = spec.partition(":")
        nth, _, argument = rest.partition(":")
        if verb not in ("kill", "raise", "pause") or not nth.isdigit():
            raise ValueError(f"ORDERSTREAM_FAILPOINTS: {part!r} is not place=kill|raise|pause:N[:…]")
        _armed[name] = _on_nth(int(nth), verb, argument)


def _on_nth(nth: int, verb: str, argument: str) -> Callable[[], None]:
    reached = 0
    times = int(argument or 1) if verb == "raise" else 1

    def action() -> None:
        nonlocal reached
        reached += 1
        if not nth <= reached < nth + times:
            return
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "raise":
            raise Triggered
        else:
            _pause_until(Path(argument))

    return action


def _pause_until(file: Path) -> None:
    deadline = time.monotonic() + _PAUSE_LIMIT_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
