"""Channels to the servers."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The servers' default limit of a message."""


def connect(
    target: str,
    *,
    tls_server_ca: Path | None = None,
    tls_client_certificate: Path | None = None,
    tls_client_key: Path | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """A channel to a server. Nothing is sent before the first call.

    Args:
        target: HOST:PORT.
        tls_server_ca: PEM file of the CAs that sign the server's certificate. Given: the channel uses TLS.
        tls_client_certificate: PEM file of the certificate chain to show to a server that asks for one.
        tls_client_key: PEM file of its private key.
        max_message_bytes: largest message that is sent or received.

    Raises:
        ValueError: client certificate, key and server CA do not go together.
        OSError: a file cannot be read.
    """
    if (tls_client_certificate is None) != (tls_client_key is None):
        raise ValueError("tls_client_certificate and tls_client_key go together: give both or none")
    options = (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A server that restarts is away for a second or two: gRPC's own backoff would grow to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )
    if tls_server_ca is None:
        if tls_client_certificate is not None:
            raise ValueError("a client certificate needs tls_server_ca: without it the channel is not encrypted")
        return grpc.aio.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls_server_ca.read_bytes(),
        private_key=tls_client_key.read_bytes() if tls_client_key is not None else None,
        certificate_chain=tls_client_certificate.read_bytes() if tls_client_certificate is not None else None,
    )
    return grpc.aio.secure_channel(target, credentials, options)
