"""Words around numbers."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """A number and what it counts: "1 order", "2,357 orders". `thing` is the singular, of a word that takes an s."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
