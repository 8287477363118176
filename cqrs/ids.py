"""Identifiers: time-ordered UUIDs, and the partition of an aggregate."""

from __future__ import annotations

import os
import threading
import time
from zlib import crc32

PARTITIONS = 64
"""How many partitions aggregates are spread over. Part of every stored subject: never change it."""


class _RandomPool:
    """Random bytes, fetched many at a time: each call to the kernel hands the interpreter's lock to another thread."""

    def __init__(self) -> None:
        self._hex = ""
        self._next = 0

    def take(self) -> str:
        """80 bits, as 20 hexadecimal digits that nobody had before."""
        start = self._next
        if start == len(self._hex):
            self._hex, start = os.urandom(10 * 512).hex(), 0
        self._next = start + 20
        return self._hex[start : start + 20]


_pool = threading.local()


def new_id() -> str:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, 74 random bits. Ids sort by time of making."""
    try:
        random = _pool.random.take()
    except AttributeError:
        _pool.random = _RandomPool()
        random = _pool.random.take()
    time_part = f"{time.time_ns() // 1_000_000:012x}"
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{time_part[:8]}-{time_part[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


def partition_of(aggregate_id: str) -> int:
    """The aggregate's partition, 0 to PARTITIONS - 1: CRC-32 of its UTF-8 id. Stored in subjects: never change it."""
    return crc32(aggregate_id.encode()) % PARTITIONS
