"""Identifiers: time-ordered UUIDs, and the partition of an aggregate."""

from __future__ import annotations

import os
import threading
import time
from zlib import crc32

PARTITIONS = 64
"""How many partitions aggregates are spread over. Part of every stored subject: never change it."""


class _Ids(threading.local):
    """What a thread makes ids from. It costs less to prepare the parts of many than to make one at a time."""

    def __init__(self) -> None:
        self.milliseconds = -1
        self.time_part = ""
        """Of the last id: `milliseconds` as an id begins with them."""
        self.endings: list[str] = []
        """74 random bits, version and variant, as nobody has had them before."""

    def prepare(self) -> None:
        """Make more endings, from random bytes of the kernel's: each call to it hands the interpreter's lock over."""
        digits = os.urandom(_ENDING_BYTES * _PREPARED).hex()
        for at in range(0, len(digits), 2 * _ENDING_BYTES):
            part = digits[at : at + 2 * _ENDING_BYTES]
            variant = "89ab"[int(part[3], 16) & 3]
            self.endings.append(f"7{part[:3]}-{variant}{part[4:7]}-{part[7:19]}")


_ENDING_BYTES = 10
_PREPARED = 512

_ids = _Ids()
os.register_at_fork(after_in_child=_ids.endings.clear)  # they are the parent's to give


def new_id() -> str:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, 74 random bits. Ids sort by time of making."""
    ids = _ids
    milliseconds = time.time_ns() // 1_000_000
    if milliseconds != ids.milliseconds:
        digits = f"{milliseconds:012x}"
        ids.milliseconds, ids.time_part = milliseconds, f"{digits[:8]}-{digits[8:]}-"
    if not ids.endings:
        ids.prepare()
    return ids.time_part + ids.endings.pop()


def partition_of(aggregate_id: str) -> int:
    """The aggregate's partition, 0 to PARTITIONS - 1: CRC-32 of its UTF-8 id. Stored in subjects: never change it."""
    return crc32(aggregate_id.encode()) % PARTITIONS
