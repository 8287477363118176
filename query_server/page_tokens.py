"""Page tokens of lists: where the next page begins, bound to the filter of the query.

Opaque to clients. Inside: a format byte, the last row's create_time (8 bytes) and order id, and a digest over these and
the filter, in URL-safe base64 without padding. The digest guards against mistakes (another query's token, a cut one); a
forged token shows nothing that the query itself would not.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import blake2b
from typing import NamedTuple

_FORMAT = 1
_HEAD = struct.Struct(">Bq")
_DIGEST_BYTES = 8
_MOST_CHARACTERS = 512


class MalformedPageToken(ValueError):
    """The text is not a page token that this query gave with this filter."""


class Cursor(NamedTuple):
    """The last row of a page; the next page begins after it."""

    create_time: int
    """Microseconds since 1970."""
    order_id: str


def encode_page_token(cursor: Cursor, query: bytes) -> str:
    """The token for the page after `cursor`. `query` is the canonical form of the query's filter."""
    body = _HEAD.pack(_FORMAT, cursor.create_time) + cursor.order_id.encode()
    return urlsafe_b64encode(body + _digest(body, query)).rstrip(b"=").decode("ascii")


def decode_page_token(text: str, query: bytes) -> Cursor:
    """The inverse of `encode_page_token`.

    Raises:
        MalformedPageToken: the text is no page token, or one of another query or filter.
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise MalformedPageToken(text[:20])
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        body, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
        if digest != _digest(body, query) or len(body) < _HEAD.size or body[0] != _FORMAT:
            raise MalformedPageToken(text)
        cursor = Cursor(_HEAD.unpack_from(body)[1], body[_HEAD.size :].decode())
    except (Base64Error, UnicodeError) as error:
        raise MalformedPageToken(text) from error
    if encode_page_token(cursor, query) != text:  # the decoder skips characters that are not of its alphabet
        raise MalformedPageToken(text)
    return cursor


def _digest(body: bytes, query: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES, key=blake2b(query, digest_size=32).digest()).digest()
