"""Identifiers: time-ordered UUIDs, and the partition of an aggregate."""

from __future__ import annotations

import os
import time
from uuid import UUID
from zlib import crc32

PARTITIONS = 64
"""How many partitions aggregates are spread over. Part of every stored subject: never change it."""


def new_id() -> str:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, 74 random bits. Ids sort by time of making."""
    value = int.from_bytes(os.urandom(10), "big") | (time.time_ns() // 1_000_000) << 80
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    return str(UUID(int=value))


def partition_of(aggregate_id: str) -> int:
    """The aggregate's partition, 0 to PARTITIONS - 1: CRC-32 of its UTF-8 id. Stored in subjects: never change it."""
    return crc32(aggregate_id.encode()) % PARTITIONS
