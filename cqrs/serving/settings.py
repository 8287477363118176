"""Settings of a server. `settings_loader` fills them from flags, environment, TOML file and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cqrs.serving.logging import LogFormat, LogLevel

ENV_PREFIX = "ORDERSTREAM_"
"""Of the environment variables of all settings."""


class ServerSettings(BaseSettings):
    """What every server can be told. Subclasses add their own fields and set `server`.

    Every field needs a description that says its unit: it becomes the server's `--help`. Fields are scalars.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    server: ClassVar[str] = ""
    """Name of the server: its table in the settings file, `orderstream serve NAME`, and `process` in its log lines."""

    listen: str = Field("127.0.0.1:50051", description="Address of the gRPC endpoint, HOST:PORT. Port 0: any free one.")
    metrics_listen: str = Field(
        "127.0.0.1:0",
        description="Address of /metrics (Prometheus) and /healthz, HOST:PORT. Port 0: any free one. Empty: none.",
    )
    log_level: LogLevel = Field("info", description="Least severe level that is logged.")
    log_format: LogFormat = Field("text", description="Form of the log lines on stderr.")
    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate chain. Given: the gRPC endpoint speaks TLS only."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of CAs. Given: only clients with a certificate of one of them are let in."
    )
    tls_server_ca: Path | None = Field(
        None, description="PEM file of CAs that sign the servers which this one calls. Given: those calls use TLS."
    )
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=65536, le=1 << 30, description="Largest gRPC message that is received or sent, in bytes."
    )
    max_concurrent_calls: int = Field(
        1024, ge=1, description="Calls in progress at a time; one more is refused at once with RESOURCE_EXHAUSTED."
    )
    drain_seconds: float = Field(
        10.0, ge=0, description="On a stop, how long calls in progress may take to finish, in seconds."
    )
    ready_file: Path | None = Field(
        None,
        description="File to write the process id and the bound addresses to (JSON) once serving. Removed on stop.",
    )
    stop_with_parent: bool = Field(
        False, description="Stop when stdin reaches its end: when the parent process is gone."
    )
    nats_url: str = Field("nats://127.0.0.1:4222", description="URL of the NATS server.")
    stream: str = Field(
        "ORDERSTREAM", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the JetStream stream of the log."
    )
    subject_prefix: str = Field(
        "orderstream", pattern=r"^[A-Za-z0-9_-]+$", description="First token of all subjects on the broker."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_no_file(cls, value: object, info: ValidationInfo) -> object:
        """An empty variable, as deployment files leave them, names no file (and not the working directory)."""
        if value == "" and info.field_name and cls.model_fields[info.field_name].annotation == (Path | None):
            return None
        return value

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _is_an_address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name != "metrics_listen":
            split_address(value)
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ServerSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: give both or none")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT" ("[::1]:80" for IPv6).

    Raises:
        ValueError: it is not of this form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{address!r} is no address: give HOST:PORT, such as 127.0.0.1:50051")
    return host.removeprefix("[").removesuffix("]"), int(port)
