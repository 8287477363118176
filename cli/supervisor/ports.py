"""The ports of `up`: each with the option that sets it."""

from __future__ import annotations

import socket
from typing import NamedTuple

from cli.failures import InUse

LOOPBACK = "127.0.0.1"


class Ports(NamedTuple):
    """Where everything listens, on loopback. 0: any free port."""

    command: int = 50051
    query: int = 50052
    projector: int = 50053
    nats: int = 4222
    command_metrics: int = 9464
    query_metrics: int = 9465
    projector_metrics: int = 9466

    def check_free(self) -> None:
        """Look whether the ports can be had.

        Raises:
            InUse: one cannot; the hint names the option that changes it.
        """
        chosen = [port for port in self if port]
        for field, port in zip(self._fields, self, strict=True):
            option = f"--{field.replace('_', '-')}-port"
            if port and chosen.count(port) > 1:
                raise InUse(f"port {port} is given twice", hint=f"choose another with {option} PORT (0: any free one)")
            if port and not _is_free(port):
                raise InUse(
                    f"port {port} is in use by another process",
                    hint=f"stop what listens there, or choose another with {option} PORT (0: any free one), "
                    "or any for everything with --any-port",
                )


ANY_PORTS = Ports(0, 0, 0, 0, 0, 0, 0)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection of the last run that still lingers does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
