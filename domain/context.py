"""What a decision may know beside its aggregate and its command."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from orderstream.customers.v1.customer_pb2 import Customer


@dataclass(frozen=True, slots=True)
class Context:
    """The clock, and the aggregates that the command refers to."""

    now: Timestamp
    """The server's time. Events that name no time of their own happened now."""
    customer: Customer | None = None
    """The customer that the command names; None: not registered."""
