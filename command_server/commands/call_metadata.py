"""What a call's metadata says of who and what caused the command."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cqrs.commit.command import CallMetadata
from cqrs.serving.validation import Violations

MAX_LENGTH = 128
"""Characters of each value."""

_FIELDS = {
    "x-correlation-id": "correlation_id",
    "x-causation-id": "causation_id",
    "x-actor": "actor",
    "traceparent": "traceparent",
}

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?").fullmatch
"""W3C Trace Context, section 3.2."""

_NONE = CallMetadata()


def read_call_metadata(pairs: Iterable[tuple[str, str | bytes]] | None, violations: Violations) -> CallMetadata:
    """The values that go into the events. A malformed `traceparent` is ignored, as its specification demands."""
    found: dict[str, str] = {}
    for key, value in pairs or ():
        field = _FIELDS.get(key)
        if field is None or not isinstance(value, str) or not value:
            continue
        if field == "traceparent":
            if len(value) <= MAX_LENGTH and _TRACEPARENT(value):
                found[field] = value
        else:
            violations.text(f"metadata {key}", value, 1, MAX_LENGTH)
            found[field] = value
    return CallMetadata(**found) if found else _NONE
