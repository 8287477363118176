"""Protobuf's wire format, where messages are put together from parts that are serialised already.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

_LENGTH_DELIMITED = 2
_SMALL = tuple(bytes([value]) for value in range(0x80))


def varint(value: int) -> bytes:
    """A non-negative integer, in as few bytes as it takes."""
    if value < 0x80:
        return _SMALL[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def varint_tag(field_number: int) -> bytes:
    """What stands before an integer."""
    return varint(field_number << 3)


def length_tag(field_number: int) -> bytes:
    """What stands before the length of text, bytes or a message."""
    return varint(field_number << 3 | _LENGTH_DELIMITED)
