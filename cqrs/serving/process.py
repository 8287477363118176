"""Runs a server's `main` as a process: event loop, signals, parent watch, exit codes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from cqrs.errors import OperatorError
from cqrs.serving.logging import configure_logging, get_logger
from cqrs.serving.settings import ServerSettings
from cqrs.serving.settings_loader import load_settings
from cqrs.serving.stop import StopSignal

__all__ = ["EXIT_CONFIG", "EXIT_SOFTWARE", "StopSignal", "new_event_loop", "run_server", "settle"]

EXIT_SOFTWARE = 70
"""The process ended by a defect (EX_SOFTWARE of sysexits.h)."""

EXIT_CONFIG = 78
"""The process cannot go on until an operator acts (EX_CONFIG of sysexits.h)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = get_logger(__name__)

SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def run_command_line(
    main: Callable[[SettingsT, StopSignal], Awaitable[None]], settings: type[SettingsT], args: Sequence[str]
) -> int:
    """`run_server` with the settings that these command line flags, the environment and the file amount to.

    Settings that are wrong are told on stderr, and the exit code is EXIT_CONFIG.
    """
    loaded = load_settings_or_tell(settings, args)
    return EXIT_CONFIG if loaded is None else run_server(main, loaded)


def load_settings_or_tell(settings: type[SettingsT], args: Sequence[str]) -> SettingsT | None:
    """The settings that flags, environment and file amount to; None, and a line on stderr, if they are wrong."""
    try:
        return load_settings(settings, args)
    except OperatorError as error:
        print(error, file=sys.stderr)  # noqa: T201 - how to log is among the settings
        return None


def run_server(main: Callable[[SettingsT, StopSignal], Awaitable[None]], settings: SettingsT) -> int:
    """Run `main` until it returns; gives the process's exit code.

    SIGTERM and SIGINT set the stop signal, upon which `main` should drain and return; a second one ends the process at
    once. With `settings.stop_with_parent`, so does the end of stdin.

    Returns:
        0 after a clean stop, EXIT_CONFIG after an OperatorError (logged as one line), EXIT_SOFTWARE after any other
        exception (logged with its traceback).
    """
    configure_logging(settings.log_level, settings.log_format, process=type(settings).server)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_supervise(main, settings))
    except Exception as error:  # noqa: BLE001 - the process's last resort: everything ends as a log line and a code
        operator_error = next((leaf for leaf in _leaves(error) if isinstance(leaf, OperatorError)), None)
        if operator_error is not None:
            _log.error("cannot go on", error=str(operator_error), kind=type(operator_error).__name__)
            return EXIT_CONFIG
        _log.critical("stopped by a defect", exc_info=error)
        return EXIT_SOFTWARE
    return 0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop: uvloop's where it is installed (9 % more unary calls, 26 % more stream messages)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _supervise(main: Callable[[SettingsT, StopSignal], Awaitable[None]], settings: SettingsT) -> None:
    stop = StopSignal()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, _on_signal, number, stop)
    if settings.stop_with_parent:
        _stop_at_end_of_stdin(loop, stop)
    try:
        await main(settings, stop)
    finally:
        _log.info("stopped", reason=stop.reason or "its work is done")


def _on_signal(number: signal.Signals, stop: StopSignal) -> None:
    if stop.is_set():
        _log.warning("second signal: ending at once", signal=number.name)
        sys.stderr.flush()
        # Nothing needs to be put in order: what is durable is safe against a kill at any time.
        os._exit(128 + number)
    _log.info("stopping", signal=number.name)
    stop.set(f"received {number.name}")


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: StopSignal) -> None:
    """Stop when the parent, which holds the other end of our stdin, is gone, however it went."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        try:
            loop.call_soon_threadsafe(stop.set, "the parent process has gone")
        except RuntimeError:
            return  # The loop is closed: the process is ending anyway.

    # A thread, since stdin may be a file or a terminal, which an event loop cannot watch; a daemon, since it may block
    # for ever.
    threading.Thread(target=watch, name="stdin-watch", daemon=True).start()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside exception groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def settle() -> None:
    """Take what the start has made out of the garbage collector's sight. To be called once, when the server serves.

    The hundred thousand objects of libraries and schemas live as long as the process, and each full collection would
    look at all of them, on the event loop's thread. Collections come less often, too: what a call makes is freed by
    counting references, and the default of one in 700 new objects took a tenth of a busy server's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
