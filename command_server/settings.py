"""Settings of the command server."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from command_server.aggregates import CUSTOMER, ORDER
from cqrs.serving.settings import ServerSettings


class CommandServerSettings(ServerSettings):
    """The command server: validates and decides commands, and owns the event log."""

    server: ClassVar[str] = "command"

    listen: str = Field("127.0.0.1:50051", description="Address of the gRPC endpoint, HOST:PORT. Port 0: any free one.")
    metrics_listen: str = Field(
        "127.0.0.1:9464",
        description="Address of /metrics (Prometheus) and /healthz, HOST:PORT. Port 0: any free one. Empty: none.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve gRPC, on one port. Beside them one decides and commits, for all of them.",
    )
    write_db_url: str = Field(
        "sqlite:///data/write.db",
        description="The write DB: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE for several servers.",
    )
    max_batch_commands: int = Field(512, ge=1, le=10_000, description="Commands in one transaction at most.")
    max_batch_bytes: int = Field(4 * 1024 * 1024, ge=1024, description="Bytes of requests in one transaction at most.")
    max_queued_commands: int = Field(
        4096, ge=1, description="Commands that may wait; more are refused at once with OVERLOADED."
    )
    max_queued_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Bytes of requests that may wait; more are refused with OVERLOADED."
    )
    max_event_bytes: int = Field(
        1024 * 1024 - 16 * 1024,
        ge=4096,
        description="Largest event with its envelope, in bytes. The broker's max_payload must not be smaller.",
    )
    cached_aggregates: int = Field(100_000, ge=1, description="Aggregate states kept in memory.")
    snapshot_order_events: int = Field(
        100, ge=0, description="A snapshot of an order is taken about every so many events of it. 0: none."
    )
    snapshot_customer_events: int = Field(
        100, ge=0, description="A snapshot of a customer is taken about every so many events of it. 0: none."
    )
    snapshots_kept: int = Field(
        10, ge=1, le=1000, description="Snapshots kept of one aggregate, spread over its life, for looking at the past."
    )
    request_id_days: float = Field(
        7.0, gt=0, description="Outcomes are kept for request ids this many days, then pruned."
    )
    stream_replicas: int = Field(1, ge=1, le=5, description="Copies of each message in a JetStream cluster: 1, 3 or 5.")
    relay_poll_seconds: float = Field(
        0.25, gt=0, le=60, description="The relay looks at the log this often if no local commit wakes it."
    )
    log_readers: int = Field(
        4,
        ge=1,
        le=64,
        description="Threads and connections of each worker that serve EventService, beside one for what is new.",
    )
    max_subscribers: int = Field(
        500, ge=1, description="Subscriptions to the log at a time in each worker; more are refused with OVERLOADED."
    )
    subscription_poll_seconds: float = Field(
        0.25,
        gt=0,
        le=60,
        description="With subscribers, the log is looked at this often for events of other hosts. Local ones are told.",
    )

    @property
    def snapshot_every(self) -> dict[str, int]:
        """After how many events a snapshot is taken, by the name of the aggregate type."""
        return {ORDER.name: self.snapshot_order_events, CUSTOMER.name: self.snapshot_customer_events}
