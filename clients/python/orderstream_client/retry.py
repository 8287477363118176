"""When a call is worth another attempt, and after how long."""

from __future__ import annotations

import random
from typing import NamedTuple

import grpc

from orderstream_client.errors import OrderstreamCallError

RETRYABLE_REASONS = frozenset(
    {"OVERLOADED", "STORE_UNAVAILABLE", "LOG_HALTED", "SHUTTING_DOWN", "READ_MODEL_BEHIND", "DEPENDENCY_UNAVAILABLE"}
)
"""Reasons whose comment in the contract says that the same request may succeed later."""

_BROKEN_CONNECTION = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
)
"""What gRPC itself reports when a connection breaks. Without a reason, no server has answered."""


class RetryPolicy(NamedTuple):
    """How often and how long a call is tried."""

    max_attempts: int = 6
    first_backoff_seconds: float = 0.05
    longest_backoff_seconds: float = 2.0

    def backoff_seconds(self, attempts: int, error: OrderstreamCallError) -> float:
        """How long to wait after `attempts` failed ones: growing, with jitter, at least what the server asks for."""
        longest: float = min(self.longest_backoff_seconds, self.first_backoff_seconds * 2 ** (attempts - 1))
        # Jitter: calls that failed together should not come back together.
        return max(error.retry_after or 0.0, longest * (0.5 + random.random() / 2))


def is_worth_a_retry(error: OrderstreamCallError) -> bool:
    """Whether the same request may succeed later."""
    if error.reason:
        return error.reason in RETRYABLE_REASONS
    return error.code in _BROKEN_CONNECTION
