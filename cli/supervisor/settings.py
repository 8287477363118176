"""What `up` is told, and the settings that it hands to each server."""

from __future__ import annotations

from typing import NamedTuple

from cli.supervisor.data_directory import DataDirectory
from cli.supervisor.ports import LOOPBACK, Ports


class UpSettings(NamedTuple):
    """What one run of `up` is to do. Settings that are not here reach the servers through the environment."""

    data: DataDirectory
    ports: Ports
    log_level: str
    """Least severe level of the servers' log lines that are passed on."""


def command_arguments(settings: UpSettings, nats_url: str, ports: Ports) -> list[str]:
    """Settings of the command server."""
    return [
        *_common(settings, nats_url, ports.command, ports.command_metrics),
        f"--write-db-url={settings.data.write_db_url}",
    ]


def projector_arguments(settings: UpSettings, nats_url: str, ports: Ports) -> list[str]:
    """Settings of the projector."""
    return [
        *_common(settings, nats_url, ports.projector, ports.projector_metrics),
        f"--read-db-url={settings.data.read_db_url}",
        f"--command-server={LOOPBACK}:{ports.command}",
    ]


def query_arguments(settings: UpSettings, nats_url: str, ports: Ports) -> list[str]:
    """Settings of the query server."""
    return [
        *_common(settings, nats_url, ports.query, ports.query_metrics),
        f"--read-db-url={settings.data.read_db_url}",
    ]


def _common(settings: UpSettings, nats_url: str, port: int, metrics_port: int) -> list[str]:
    return [
        f"--listen={LOOPBACK}:{port}",
        f"--metrics-listen={LOOPBACK}:{metrics_port}",
        f"--nats-url={nats_url}",
        f"--log-level={settings.log_level}",
    ]
