"""The fingerprint of a kind of aggregate: what its states are made of, and what makes them (ADR 14).

Two processes with one fingerprint make the same state of the same events, and read it from the same bytes. The other
way round it may differ without need, and costs a fold; it must never be the same without being so.
"""

from __future__ import annotations

from hashlib import sha256

from cqrs.commit.command import AggregateType
from cqrs.snapshots.behaviour import behaviour_of
from cqrs.snapshots.messages import schema_of

_FORM = "orderstream snapshot 1"
"""Of fingerprint and snapshot: another one makes all snapshots that there are unused."""


def fingerprint_of_type(type_: AggregateType) -> bytes:
    """SHA-256 of the type's name, its messages and its fold.

    Raises:
        Untold: what the fold does cannot be told.
    """
    messages = [type_.state.DESCRIPTOR, *(event.DESCRIPTOR for event in type_.events.values())]
    text = "\n".join(
        (_FORM, type_.name, type_.state.DESCRIPTOR.full_name, schema_of(messages), behaviour_of(type_.evolve))
    )
    return sha256(text.encode()).digest()
