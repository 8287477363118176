"""One port for several workers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cqrs.errors import ConfigurationError
from cqrs.serving.settings import split_address


@contextmanager
def reserved(listen: str, workers: int) -> Iterator[str]:
    """The address that all of the workers listen on, which they should do while this is open.

    With one worker it is `listen`. Several share a port (SO_REUSEPORT): one that another program holds must be found
    out, since it could share the port too; and port 0 becomes one that nobody else is given until they listen.

    Raises:
        ConfigurationError: the address is taken or not of this machine.
    """
    if workers == 1:
        yield listen
        return
    host, port = split_address(listen)
    if port:
        with _bound(listen, host, port, share=False):
            pass  # nobody else has it
    with _bound(listen, host, port, share=True) as holder:
        settled = holder.getsockname()[1]
        yield f"[{host}]:{settled}" if ":" in host else f"{host}:{settled}"


@contextmanager
def _bound(listen: str, host: str, port: int, *, share: bool) -> Iterator[socket.socket]:
    """A socket that has the address, and takes no connections."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        # As gRPC does: connections of an earlier server that linger do not keep the port taken.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {listen}: {error.strerror}") from error
        yield holder
