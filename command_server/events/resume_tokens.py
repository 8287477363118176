"""Resume tokens: "this subscriber has had the log up to here".

Opaque to clients. Inside: a format byte, the cell, the log's epoch, two positions, a time, and a CRC-32 against typing
errors, in URL-safe base64 without padding (63 characters). There is nothing about the filter: a token is a point of the
log, and may be used with another one.
"""

from __future__ import annotations

import struct
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

_FORMAT = 1
_BODY = struct.Struct(">BH16sQQq")
_CRC = struct.Struct(">I")


class MalformedResumeToken(ValueError):
    """The text is not a resume token that a server of this system made."""


class ResumeToken(NamedTuple):
    """Where a subscription is."""

    epoch: str
    """The log's epoch, a UUID in its canonical form."""
    covered: int
    """Everything up to this position was delivered, or not chosen."""
    next_position: int
    """The first position to deliver: behind `covered`, but for a subscription to a position far ahead."""
    not_before: int = 0
    """Events recorded before this time (microseconds since 1970) are left out: for a start at a time ahead."""
    cell: int = 0
    """Which log. One log, cell 0, is all there is so far."""


def encode_resume_token(token: ResumeToken) -> str:
    """The token as clients carry it."""
    body = _BODY.pack(
        _FORMAT, token.cell, UUID(token.epoch).bytes, token.covered, token.next_position, token.not_before
    )
    return urlsafe_b64encode(body + _CRC.pack(crc32(body))).rstrip(b"=").decode("ascii")


def decode_resume_token(text: str) -> ResumeToken:
    """The inverse of `encode_resume_token`.

    Raises:
        MalformedResumeToken: the text is no such token, or one of a format that this version does not know.
    """
    try:
        raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise MalformedResumeToken("is no resume token: pass one exactly as a server returned it") from error
    if len(raw) != _BODY.size + _CRC.size or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
        raise MalformedResumeToken("is no resume token: pass one exactly as a server returned it")
    form, cell, epoch, covered, next_position, not_before = _BODY.unpack(raw[:-4])
    if form != _FORMAT:
        raise MalformedResumeToken(f"is of format {form}, which this server does not know")
    return ResumeToken(str(UUID(bytes=epoch)), covered, next_position, not_before, cell)
