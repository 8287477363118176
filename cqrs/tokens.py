"""Consistency tokens: "this client has seen the log up to here".

Opaque to clients. Inside: a format byte, the cell, the log's epoch, a position and a CRC-32 against typing errors, in
URL-safe base64 without padding (46 characters).
"""

from __future__ import annotations

import struct
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

_FORMAT = 1
_BODY = struct.Struct(">BH16sQ")
_CRC = struct.Struct(">I")


class MalformedToken(ValueError):
    """The text is not a consistency token that a server of this system made."""


class ConsistencyToken(NamedTuple):
    """A point of one history."""

    epoch: str
    """The log's epoch, a UUID in its canonical form."""
    position: int
    """What the holder has seen: everything up to this log position."""
    cell: int = 0
    """Which log. One log, cell 0, is all there is so far."""


def encode_token(token: ConsistencyToken) -> str:
    """The token as clients carry it."""
    return encode_token_bytes(UUID(token.epoch).bytes, token.position, token.cell)


def encode_token_bytes(epoch: bytes, position: int, cell: int = 0) -> str:
    """As `encode_token`, for callers that hold the epoch's 16 bytes."""
    body = _BODY.pack(_FORMAT, cell, epoch, position)
    return urlsafe_b64encode(body + _CRC.pack(crc32(body))).rstrip(b"=").decode("ascii")


def decode_token(text: str) -> ConsistencyToken:
    """The inverse of `encode_token`.

    Raises:
        MalformedToken: the text is no token, or one of a format that this version does not know.
    """
    try:
        raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise MalformedToken("not a consistency token: pass one exactly as a server returned it") from error
    if len(raw) != _BODY.size + _CRC.size or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
        raise MalformedToken("not a consistency token: pass one exactly as a server returned it")
    form, cell, epoch, position = _BODY.unpack(raw[:-4])
    if form != _FORMAT:
        raise MalformedToken(f"a consistency token of format {form}, which this server does not know")
    return ConsistencyToken(str(UUID(bytes=epoch)), position, cell)
