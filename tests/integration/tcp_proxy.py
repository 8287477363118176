"""A TCP proxy for tests of connections that break: at once, or around a COMMIT of PostgreSQL's protocol."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum

_COMMIT = b"COMMIT\0"
"""How a client asks for it: a Query message with this text."""

_SECONDS = 30.0
_CHUNK = 64 * 1024


class Loss(Enum):
    """What is lost of a COMMIT, together with its connection."""

    REQUEST = "the server never gets it"
    REPLY = "the server does it, the client is not told"


class TcpProxy:
    """Between any number of clients and one server, on a free port of the loopback device."""

    def __init__(self, host: str, port: int) -> None:
        """Prepare to hand connections on to HOST:PORT."""
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._loss: tuple[Loss, Callable[[], None]] | None = None
        self._losing: dict[socket.socket, threading.Event] = {}
        """The servers' ends whose COMMIT gets lost, and what is set once they have answered it."""
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self._listener.getsockname()[1])

    def lose_next_commit(self, loss: Loss, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Break the connection of the next COMMIT. `meanwhile` runs when the server's end is gone, the client's not."""
        self._loss = (loss, meanwhile)

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _close(end)

    def close(self) -> None:
        """Break all connections, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, _SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.append((client, server))
            self._spawn(self._pump_requests, client, server)
            self._spawn(self._pump_answers, server, client)

    def _pump_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if self._loss is not None and _COMMIT in data:
                    (loss, meanwhile), self._loss = self._loss, None
                    answered = self._losing[server] = threading.Event()
                    if loss is Loss.REPLY:
                        server.sendall(data)
                        answered.wait(_SECONDS)
                    _close(server)
                    meanwhile()
                    break
                server.sendall(data)
        _close(client)
        _close(server)

    def _pump_answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if server in self._losing:
                    self._losing[server].set()
                else:
                    client.sendall(data)
        if server not in self._losing:
            _close(client)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def tcp_proxy(host: str, port: int) -> Iterator[TcpProxy]:
    """A proxy that is closed in the end."""
    proxy = TcpProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
