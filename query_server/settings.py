"""Settings of the query server."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cqrs.serving.settings import ServerSettings


class QueryServerSettings(ServerSettings):
    """What the query server can be told, beside what every server can."""

    server: ClassVar[str] = "query"

    listen: str = Field("127.0.0.1:50052", description="Address of the gRPC endpoint, HOST:PORT. Port 0: any free one.")
    metrics_listen: str = Field(
        "127.0.0.1:9465",
        description="Address of /metrics (Prometheus) and /healthz, HOST:PORT. Port 0: any free one. Empty: none.",
    )
    read_db_url: str = Field("sqlite:///data/read.db", description="The read DB: sqlite:///FILE. It is only read.")
    read_threads: int = Field(4, ge=1, le=64, description="Reads of the read DB at a time.")
    read_queue: int = Field(
        256, ge=0, description="Reads that may wait for a thread; one more is refused at once with RESOURCE_EXHAUSTED."
    )
    cache_ttl_seconds: float = Field(
        60.0, ge=0, description="How long an answer is kept at most, in seconds. 0: nothing is cached."
    )
    cache_max_bytes: int = Field(
        64 * 1024 * 1024, ge=0, description="Memory for cached answers, in bytes. 0: nothing is cached."
    )
    max_waiting_calls: int = Field(
        400,
        ge=1,
        description="Calls that may wait for a consistency token, per projection; one more is refused at once.",
    )
    poll_interval_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds between two looks at the checkpoints while nobody waits, which show lost notifications.",
    )
