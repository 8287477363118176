"""Structured logs: one line an event, as text or JSON, to stderr; the records of libraries in the same form."""

from __future__ import annotations

import logging
import sys
from typing import Literal, cast

import structlog
from structlog.types import Processor

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)

_CHATTY = ("alembic", "asyncio", "grpc", "nats")
"""Libraries whose INFO says nothing that an operator of this system needs."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; `log.info("event in plain words", key=value)`. Give the module's `__name__`.

    It goes through the standard library's logger of that name, so it works before (and without) `configure_logging`.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def configure_logging(level: LogLevel = "info", form: LogFormat = "text", *, process: str = "") -> None:
    """Send all logs of this process to stderr. To be called once, by the process's entry point.

    Args:
        level: the least severe level that is written.
        form: "text" for people (coloured on a terminal), "json" for machines: one object a line.
        process: stands in every line, so that the lines of several processes can share a terminal.
    """
    renderers: list[Processor]
    if form == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _AddProcess(process), *renderers],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


class _AddProcess:
    """Adds the name of the process to each line."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if self._process:
            event.setdefault("process", self._process)
        return event
