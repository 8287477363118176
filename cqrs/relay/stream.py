"""The stream that mirrors the log: its set-up, and where it stands."""

from __future__ import annotations

from typing import NamedTuple

from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError

from cqrs.errors import HistoryDiverged, UnsupportedBroker
from cqrs.records import GENESIS_HASH, EventRecord, LogHead
from cqrs.store.port import EventReader
from cqrs.subjects import HEADER_EPOCH, HEADER_HASH, HEADER_POSITION, log_filter

METADATA_EPOCH = "orderstream.epoch"
"""The stream's metadata say of which history it is."""

_NAME_IN_USE = 10058
"""Of two who make the stream at once, with settings that differ, the broker tells one this."""

_SUBJECTS_OVERLAP = 10065


class StreamSettings(NamedTuple):
    """Which stream."""

    name: str
    prefix: str
    """First token of all subjects."""
    replicas: int
    """Copies of each message in a JetStream cluster: 1, 3 or 5."""


class Tail(NamedTuple):
    """The end of the stream."""

    position: int
    hash: bytes


EMPTY_TAIL = Tail(0, GENESIS_HASH)


async def ensure_stream(client: Client, settings: StreamSettings, epoch: str) -> int:
    """Create the stream if there is none; returns its last sequence.

    Raises:
        UnsupportedBroker: the stream is set up in a way that could lose, change or renumber messages, or another stream
            has its subjects.
        HistoryDiverged: the stream belongs to another history.
    """
    jetstream = client.jetstream()
    try:
        info = await jetstream.stream_info(settings.name)
    except NotFoundError:
        info = await _create(jetstream, settings, epoch)
    found = stream_epoch(info)
    faults = stream_faults(settings, info.config)
    if faults and found in ("", epoch):
        raise UnsupportedBroker(
            f"stream {settings.name} cannot mirror the log: {'; '.join(faults)}. `orderstream stream reset` makes it "
            "anew from the log, or use another stream name"
        )
    if found != epoch:
        raise HistoryDiverged(
            f"stream {settings.name} is of epoch {found or '(none)'}, the log of epoch {epoch}: they are two histories"
        )
    return info.state.last_seq


def stream_epoch(info: StreamInfo) -> str:
    """The history that a stream says it is of; empty: a relay did not make it."""
    return (info.config.metadata or {}).get(METADATA_EPOCH, "")


async def _create(jetstream: JetStreamContext, settings: StreamSettings, epoch: str) -> StreamInfo:
    try:
        return await jetstream.add_stream(_config(settings, epoch))
    except BadRequestError as error:
        if error.err_code == _SUBJECTS_OVERLAP:
            raise UnsupportedBroker(
                f"stream {settings.name} cannot be made: another stream of this broker has the subjects "
                f"{log_filter(settings.prefix)}. Two logs need two stream names and two subject prefixes: correct "
                "--stream or --subject-prefix"
            ) from error
        if error.err_code == _NAME_IN_USE:
            return await jetstream.stream_info(settings.name)
        raise


def _config(settings: StreamSettings, epoch: str) -> StreamConfig:
    return StreamConfig(
        name=settings.name,
        description="The event log of Orderstream: the sequence of a message is the log position of its event.",
        subjects=[log_filter(settings.prefix)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=settings.replicas,
        max_msgs=-1,
        max_bytes=-1,
        max_age=0,
        max_msgs_per_subject=-1,
        deny_delete=True,
        deny_purge=True,
        allow_rollup_hdrs=False,
        allow_direct=True,
        allow_atomic=True,
        metadata={METADATA_EPOCH: epoch},
    )


def stream_faults(settings: StreamSettings, config: StreamConfig) -> list[str]:
    """What is wrong with how a stream is set up: with any of it, it could lose, change or renumber messages."""
    return [
        text
        for wrong, text in (
            (config.subjects != [log_filter(settings.prefix)], f"subjects are {config.subjects}"),
            (not config.allow_atomic, "atomic batches are not allowed (nats-server 2.12 or newer is needed)"),
            (not config.deny_delete, "messages may be deleted"),
            (not config.deny_purge, "it may be purged"),
            (config.retention != RetentionPolicy.LIMITS, f"retention is {config.retention}"),
            (config.storage != StorageType.FILE, f"storage is {config.storage}"),
            (bool(config.no_ack), "publishing is not acknowledged"),
            (bool(config.sealed), "it is sealed"),
            ((config.max_msg_size or -1) > 0, f"max_msg_size is {config.max_msg_size}"),
            (bool(config.allow_msg_ttl), "messages may have a time to live"),
            (config.subject_transform is not None, "it transforms subjects"),
            ((config.max_msgs or -1) > 0, f"max_msgs is {config.max_msgs}"),
            ((config.max_bytes or -1) > 0, f"max_bytes is {config.max_bytes}"),
            ((config.max_age or 0) > 0, f"max_age is {config.max_age}"),
            ((config.max_msgs_per_subject or -1) > 0, f"max_msgs_per_subject is {config.max_msgs_per_subject}"),
            (bool(config.allow_rollup_hdrs), "roll-ups are allowed"),
            (config.mirror is not None or bool(config.sources), "it mirrors or sources another stream"),
        )
        if wrong
    ]


async def read_tail(jetstream: JetStreamContext, settings: StreamSettings, sequence: int, epoch: str) -> Tail:
    """The stream's last message.

    Raises:
        HistoryDiverged: the message is not what a relay of this epoch would have put at this sequence.
    """
    if sequence == 0:
        return EMPTY_TAIL
    message = await jetstream.get_msg(settings.name, seq=sequence)
    headers = message.headers or {}
    if headers.get(HEADER_EPOCH) != epoch or headers.get(HEADER_POSITION) != str(sequence):
        raise HistoryDiverged(
            f"message {sequence} of stream {settings.name} is position {headers.get(HEADER_POSITION)} of epoch "
            f"{headers.get(HEADER_EPOCH)}, not position {sequence} of epoch {epoch}"
        )
    try:
        return Tail(sequence, bytes.fromhex(headers.get(HEADER_HASH, "")))
    except ValueError as error:
        raise HistoryDiverged(
            f"message {sequence} of stream {settings.name} was not made by a relay: its hash is no hash"
        ) from error


def check_tail(settings: StreamSettings, tail: Tail, head: LogHead, reader: EventReader) -> None:
    """Make sure that the stream is a beginning of the log. Blocks on the store.

    Raises:
        HistoryDiverged: it is ahead of the log, or has another event at its last position.
    """
    if tail.position > head.position:
        raise HistoryDiverged(
            f"stream {settings.name} ends at position {tail.position}, the log at {head.position}: the log was "
            "restored to an older point, or is not the stream's"
        )
    if tail.position == 0:
        return
    event: EventRecord | None = next(iter(reader.read_log(tail.position, 1)), None)
    if event is None or event.position != tail.position:
        raise HistoryDiverged(f"the log lacks the event at position {tail.position}", "run `orderstream log verify`")
    if event.hash != tail.hash:
        raise HistoryDiverged(
            f"position {tail.position} has the hash {tail.hash.hex()} on stream {settings.name} and {event.hash.hex()} "
            "in the log: they are two histories"
        )
