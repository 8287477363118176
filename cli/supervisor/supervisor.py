"""Runs the broker and the three servers, restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cli import console
from cli.exit_codes import ExitCode
from cli.failures import CliError
from cli.supervisor.part import Addresses, ServerProcess
from cli.supervisor.ports import Ports
from cli.supervisor.settings import UpSettings, command_arguments, projector_arguments, query_arguments
from cqrs.broker.embedded import BrokerFailed, EmbeddedBroker
from cqrs.errors import OrderstreamError

_READY_SECONDS = 60.0
"""How long a server may take from its start until it serves."""

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 30.0
"""A part that ran this long and then dies is restarted with the first backoff again."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ARGUMENTS: dict[str, Callable[[UpSettings, str, Ports], list[str]]] = {
    "command": command_arguments,
    "projector": projector_arguments,
    "query": query_arguments,
}


class Interrupted(Exception):
    """A signal asked to stop. `number` is the signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number

    @property
    def exit_code(self) -> ExitCode:
        """What the process ends with when it was not done."""
        return ExitCode.INTERRUPTED if self.number is signal.SIGINT else ExitCode.TERMINATED


class PartFailed(CliError):
    """A part did not get up, so the whole does not."""

    exit_code = ExitCode.CONFIG


class Supervisor:
    """The parts of one installation.

    Args:
        settings: what to run and where.
        lock: descriptor of the data directory's lock, for the children to hold.
    """

    def __init__(self, settings: UpSettings, lock: int) -> None:
        self._settings = settings
        self._lock = lock
        self._broker: EmbeddedBroker | None = None
        self._servers: dict[str, ServerProcess] = {}
        self._stop_signal: asyncio.Future[signal.Signals] | None = None
        self.addresses: dict[str, Addresses] = {}
        """Where each server listens: "command", "projector" and "query"."""
        self.nats_url = ""

    async def run(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Start everything, do `work`, keep serving if it says so (returns True), stop everything.

        Raises:
            PartFailed: a part did not get up.
            Interrupted: a signal came before `work` was done. (Afterwards, a signal is the normal end.)
        """
        loop = asyncio.get_running_loop()
        self._stop_signal = loop.create_future()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        keepers: list[asyncio.Task[None]] = []
        try:
            await self._or_signal(self._start())
            keepers += [asyncio.create_task(self._keep_server(name)) for name in _ARGUMENTS]
            keepers.append(asyncio.create_task(self._keep_broker()))
            for keeper in keepers:
                keeper.add_done_callback(self._on_keeper_ended)
            if await self._or_signal(work()):
                await self._stop_signal
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await self._stop()

    async def _start(self) -> None:
        try:
            await self._start_broker(self._settings.ports.nats)
        except BrokerFailed as error:
            raise PartFailed(str(error)) from error
        # The projector needs the command server's address, which is known once that is up.
        await self._start_server("command")
        try:
            async with asyncio.TaskGroup() as starting:
                for name in ("projector", "query"):
                    starting.create_task(self._start_server(name))
        except BaseExceptionGroup as group:
            # The first is what went wrong: the others were cancelled for its sake.
            raise group.exceptions[0] from group

    async def _start_broker(self, port: int) -> None:
        broker = EmbeddedBroker(self._settings.data.jetstream, port=port)
        self._broker = broker
        await broker.start()
        self.nats_url = broker.url
        self._settings.data.write_broker_url(broker.url, broker.pid or 0)

    async def _start_server(self, name: str) -> None:
        """Start a server and wait until it serves.

        Raises:
            PartFailed: it ended, or took too long.
        """
        server = ServerProcess(
            name,
            _ARGUMENTS[name](self._settings, self.nats_url, self._pinned_ports()),
            self._settings.data.run / f"{name}.json",
            self._lock,
        )
        self._servers[name] = server
        await server.start()
        addresses = await server.ready(_READY_SECONDS)
        if addresses is None:
            server.kill()
            status = await server.wait()
            raise PartFailed(
                f"the {name} server did not get up ({_describe(status)})",
                hint="its log lines are above; --log-level info shows more of them",
            )
        self.addresses[name] = addresses

    def _pinned_ports(self) -> Ports:
        """The ports, with those chosen at the first start in the place of 0: a restart must not move a server."""
        ports = self._settings.ports._asdict()
        for name, addresses in self.addresses.items():
            ports[name] = _port_of(addresses.grpc)
            if addresses.metrics:
                ports[f"{name}_metrics"] = _port_of(addresses.metrics)
        return Ports(**ports)

    async def _keep_server(self, name: str) -> None:
        async def wait() -> int:
            return await self._servers[name].wait()

        async def restart() -> None:
            await self._start_server(name)

        await self._keep(f"{name} server", wait, restart)

    async def _keep_broker(self) -> None:
        async def wait() -> int:
            broker = self._broker
            if broker is None:
                raise RuntimeError("the broker was not started")
            return await broker.wait()

        async def restart() -> None:
            await self._start_broker(_port_of(self.nats_url))

        await self._keep("nats-server", wait, restart)

    async def _keep(
        self, name: str, wait: Callable[[], Awaitable[int]], restart: Callable[[], Awaitable[None]]
    ) -> None:
        """Restart a part whenever it ends, later each time unless it ran for a while; say so."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            status = await wait()
            if time.monotonic() - started > _STABLE_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            while True:
                console.warn(f"{name} ended ({_describe(status)}); restarting it in {backoff:g} s")
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
                try:
                    await restart()
                except (CliError, OrderstreamError, OSError) as error:
                    console.warn(f"{name}: {error}")
                    status = 1
                else:
                    console.note(f"{name} is up again")
                    break

    async def _stop(self) -> None:
        try:
            await asyncio.gather(*(server.stop() for server in self._servers.values()))
        finally:
            # Last: the servers drain better while it is there.
            if self._broker is not None:
                await self._broker.stop()
                self._settings.data.remove_broker_url()

    async def _or_signal(self, work: Awaitable[Any]) -> Any:
        """The outcome of `work`, unless a signal comes first: then `work` is cancelled."""
        stop_signal = self._stop_signal
        if stop_signal is None:
            raise RuntimeError("not running")
        task = asyncio.ensure_future(work)
        await asyncio.wait((task, stop_signal), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait((task,))
        raise Interrupted(stop_signal.result())

    def _on_signal(self, number: signal.Signals) -> None:
        stop_signal = self._stop_signal
        if stop_signal is not None and not stop_signal.done():
            console.note(f"{number.name}: stopping")
            stop_signal.set_result(number)
            return
        console.warn(f"{number.name} again: not waiting any longer")
        for server in self._servers.values():
            server.kill()

    def _on_keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """What keeps a part up never ends by itself: if it does, it is a defect, and ends the run."""
        if keeper.cancelled():
            return
        error = keeper.exception()
        stop_signal = self._stop_signal
        if error is not None and stop_signal is not None and not stop_signal.done():
            stop_signal.set_exception(error)


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
