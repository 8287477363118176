"""How long a call may still take."""

from __future__ import annotations

from typing import Any

import grpc.aio


def remaining_seconds(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    """Seconds until the call's deadline, 0 when it has passed; None if the client set none."""
    # The stubs promise a float; grpc.aio answers None for a call without a deadline.
    remaining: float | None = context.time_remaining()
    return remaining
