"""TLS: the server's side, from its settings, and the channels to the servers that it calls."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

from cqrs.errors import ConfigurationError
from cqrs.serving.settings import ServerSettings


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """What the gRPC endpoint listens with; None for plaintext. With a client CA, clients must have a certificate of it.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    client_ca = _read(settings.tls_client_ca) if settings.tls_client_ca is not None else None
    return grpc.ssl_server_credentials(
        [(_read(settings.tls_key), _read(settings.tls_certificate))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def open_channel(target: str, settings: ServerSettings) -> grpc.aio.Channel:
    """A channel to another server of this system.

    With `tls_server_ca` it uses TLS, and shows our own certificate if we have one.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    options = (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A server that restarts is away for a second or two: gRPC's own backoff would grow to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A server that vanished without a word is noticed while a stream is open.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    )
    if settings.tls_server_ca is None:
        return grpc.aio.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(settings.tls_server_ca),
        private_key=_read(settings.tls_key) if settings.tls_key is not None else None,
        certificate_chain=_read(settings.tls_certificate) if settings.tls_certificate is not None else None,
    )
    return grpc.aio.secure_channel(target, credentials, options)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the TLS file {file}: {error.strerror}") from error
