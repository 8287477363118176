"""What a call's metadata says of who and what caused the command."""

from __future__ import annotations

import re

from cqrs.commit.command import CallMetadata, CallMetadataPairs
from cqrs.serving.validation import Violations

MAX_LENGTH = 128
"""Characters of each value but the reason."""

MAX_REASON_LENGTH = 500
"""Characters of the reason: a sentence or two."""

_FIELDS = {
    "x-correlation-id": "correlation_id",
    "x-causation-id": "causation_id",
    "x-actor": "actor",
    "x-reason": "reason",
    "traceparent": "traceparent",
}

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?").fullmatch
"""W3C Trace Context, section 3.2."""

_NONE = CallMetadata()


def for_events(pairs: CallMetadataPairs) -> CallMetadataPairs:
    """Those of a call's pairs that `read_call_metadata` looks at; None if there are none, as is usual."""
    return [(key, value) for key, value in pairs or () if key in _FIELDS] or None


def read_call_metadata(pairs: CallMetadataPairs, violations: Violations) -> CallMetadata:
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
            violations.text(f"metadata {key}", value, 1, MAX_REASON_LENGTH if field == "reason" else MAX_LENGTH)
            found[field] = value
    return CallMetadata(**found) if found else _NONE
