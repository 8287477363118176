"""Publishing many messages at the price of a few.

nats-py takes 6 µs to check and format a message with headers, and as long again to hand it to the socket by itself. For
the relay that was a quarter of the time of the process that decides commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import nats.errors
from nats.aio.client import Client

_CHUNK_BYTES = 256 * 1024
"""What is handed to the connection at a time."""


async def publish_many(client: Client, messages: Iterable[tuple[str, bytes, bytes]]) -> None:
    """Publish `messages`: (subject, headers, payload), in order, and before what is published after them.

    Headers are as they go over the wire (https://docs.nats.io/reference/reference-protocols/nats-protocol): see
    `header_block`. The caller keeps to the broker's `max_payload`.

    Raises:
        nats.errors.ConnectionClosedError: there is no connection now; how much was sent is unknown.
        nats.errors.BadSubjectError: a subject is none; nothing behind it was sent.
    """
    chunk: list[bytes] = []
    size = 0
    for subject, headers, payload in messages:
        if not _is_subject(subject):
            raise nats.errors.BadSubjectError
        head = f"HPUB {subject}  {len(headers)} {len(headers) + len(payload)}\r\n".encode()
        chunk += (head, headers, payload, b"\r\n")
        size += len(head) + len(headers) + len(payload) + 2
        if size > _CHUNK_BYTES:
            await _send(client, chunk)
            chunk, size = [], 0
    if chunk:
        await _send(client, chunk)


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as they go over the wire. The values must have no line breaks, or they would be more headers."""
    lines = "".join([f"{key}: {value}\r\n" for key, value in headers])
    return f"NATS/1.0\r\n{lines}\r\n".encode()


async def _send(client: Client, chunk: Iterable[bytes]) -> None:
    if not client.is_connected:
        raise nats.errors.ConnectionClosedError
    # nats-py has no public way to send what is formatted already; its own `publish` ends in these two.
    await client._send_command(b"".join(chunk))  # noqa: SLF001 - as above
    await client._flush_pending()  # noqa: SLF001 - as above


@lru_cache(4096)
def _is_subject(subject: str) -> bool:
    return bool(subject) and subject.isascii() and subject.isprintable() and " " not in subject
