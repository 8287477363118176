"""Events as subscribers get them: serialised once, for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from command_server.events.resume_tokens import ResumeToken, encode_resume_token
from cqrs.records import EventRecord, to_wire
from orderstream.events.v1.event_service_pb2 import SubscribeResponse


class Frame(NamedTuple):
    """One event, and what decides who wants it."""

    position: int
    aggregate_type: str
    event_type: str
    aggregate_id: str
    record_time: int
    """Microseconds since 1970."""
    data: bytes
    """A SubscribeResponse with nothing but this event, serialised."""


def frame_of(event: EventRecord) -> Frame:
    """The event, serialised: to be called on a thread that reads, as many of these take milliseconds."""
    data = SubscribeResponse(events=[to_wire(event)]).SerializeToString()
    return Frame(event.position, event.aggregate_type, event.event_type, event.aggregate_id, event.record_time, data)


def answer_of(frames: Iterable[Frame], token: ResumeToken, caught_up: bool) -> bytes:
    """A SubscribeResponse, serialised. Messages that are joined as bytes are merged: what repeats is appended."""
    rest = SubscribeResponse(
        resume_token=encode_resume_token(token), position=token.covered, caught_up=caught_up
    ).SerializeToString()
    return b"".join((*(frame.data for frame in frames), rest))
