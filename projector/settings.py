"""Settings of the projector."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from cqrs.serving.settings import ServerSettings


class ProjectorSettings(ServerSettings):
    """The projector: applies the event log to the read models."""

    server: ClassVar[str] = "projector"

    listen: str = Field("127.0.0.1:50053", description="Address of the gRPC endpoint, HOST:PORT. Port 0: any free one.")
    metrics_listen: str = Field(
        "127.0.0.1:9466",
        description="Address of /metrics (Prometheus) and /healthz, HOST:PORT. Port 0: any free one. Empty: none.",
    )
    read_db_url: str = Field(
        "sqlite:///data/read.db",
        description="The read DB: sqlite:///FILE. Made if it is not there, and filled from the log.",
    )
    command_server: str = Field(
        "127.0.0.1:50051",
        description="Address of the command server, HOST:PORT: its EventService has what the stream lacks.",
    )
    batch_events: int = Field(1000, ge=1, le=10_000, description="Events in one transaction of a projection at most.")
    batch_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Bytes of events in one transaction at most; the last one may exceed it."
    )
    confirm_log_seconds: float = Field(
        math.inf,
        ge=0,
        description="How long to wait, when the stream is bound, for the log to confirm it before going on without it, "
        "in seconds; inf: for ever.",
    )
    retry_max_seconds: float = Field(
        2.0, gt=0, le=60, description="Longest pause, in seconds, between attempts of a projection that is held up."
    )
