"""What ends a command: an error with its hint and exit status, and how errors of servers become one.

CliError
├── NotUsable          the file or the data directory is not what it should be
├── InUse              the data directory or a port belongs to another process
├── Unavailable        a server cannot be reached, and waiting did not help
├── ServerRefused      a server answered with an error
└── CheckFailed        everything ran, and a check found a difference
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.exit_codes import ExitCode
from cli.wording import counted

if TYPE_CHECKING:
    from orderstream_client import OrderstreamCallError


class CliError(Exception):
    """The command ends with `exit_code`, after telling what happened and, where there is one, a hint what to do."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Sequence[tuple[str, str]] = ()
        """More to show, a line each: what it is about, and what is to be said."""
        if exit_code is not None:
            self.exit_code = exit_code


class NotUsable(CliError):
    """A file or folder is missing, or not what it should be."""

    exit_code = ExitCode.NO_INPUT


class InUse(CliError):
    """A data directory or a port belongs to another process."""

    exit_code = ExitCode.IN_USE


class Unavailable(CliError):
    """A server cannot be reached, or did not answer in time, for as long as the command was ready to wait."""

    exit_code = ExitCode.UNAVAILABLE


class CheckFailed(CliError):
    """A check found a difference."""


class ServerRefused(CliError):
    """A server answered with an error. `reason` is the contract's."""

    def __init__(self, error: OrderstreamCallError, target: str) -> None:
        code = error.code.name
        wrong = len(error.violations)
        message = f"{counted(wrong, 'field')} of the request {'is' if wrong == 1 else 'are'} wrong" if wrong else ""
        super().__init__(message or _message(error, target), hint=_hint(error, target), exit_code=_exit_code(code))
        self.code = code
        self.reason = error.reason
        self.details = [
            *((violation.field, violation.description) for violation in error.violations),
            *sorted(error.metadata.items()),
        ]


_EXIT_CODES = {
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ABORTED": ExitCode.CONFLICT,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "RESOURCE_EXHAUSTED": ExitCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNAVAILABLE,
    "INTERNAL": ExitCode.INTERNAL,
    "UNKNOWN": ExitCode.INTERNAL,
    "UNIMPLEMENTED": ExitCode.CONFIG,
}

_HINTS = {
    "INVALID_REQUEST": "correct the fields named above and send it again",
    "VERSION_CONFLICT": "look at it again, decide again, and pass the version that you then saw",
    "REQUEST_ID_REUSED": "leave --request-id out, or give each command one of its own",
    "AGGREGATE_ID_TAKEN": "choose another --id",
    "ORDER_ALREADY_EXISTS": "choose another --id",
    "CUSTOMER_ALREADY_EXISTS": "choose another --id, or change the customer with `orderstream customers update`",
    "CUSTOMER_NOT_REGISTERED": "register the customer first: `orderstream customers register --help`",
    "ORDER_NOT_FOUND": "`orderstream orders list` shows what there is; right after a command, pass its --token",
    "CUSTOMER_NOT_FOUND": "right after a command, pass its --token",
    "ORDER_WOULD_BE_EMPTY": "cancel the order instead: `orderstream orders cancel --help`",
    "ITEM_CONFLICT": "give the name and the unit price that the order has, or another SKU",
    "READ_MODEL_BEHIND": "try again, or allow more time with --max-wait",
    "HISTORY_CHANGED": "the log was restored from a backup: drop the token and read again",
    "LOG_HALTED": "`orderstream stream reset --dry-run` shows what differs; docs/operations.md has the steps",
    "OVERLOADED": "try again in a moment",
    "INTERNAL": "the server's log has the cause under the incident id",
}


_CAUSES = {
    "connection refused": "nothing listens there",
    "handshake": "the TLS handshake failed (do both sides use TLS, and the right certificates?)",
    "ssl": "the TLS handshake failed (do both sides use TLS, and the right certificates?)",
    "dns": "the name cannot be resolved",
    "timed out": "it does not answer",
    "timeout": "it does not answer",
    "closed": "the connection was closed",
    "reset": "the connection was closed",
}
"""What gRPC's words about a connection mean, the first that fits."""


def _message(error: OrderstreamCallError, target: str) -> str:
    """What went wrong. Of a call that no server answered, gRPC's own words are about its insides."""
    code = error.code.name
    if not error.reason and code == "UNAVAILABLE":
        words = error.message.lower()
        cause = next((text for sign, text in _CAUSES.items() if sign in words), "")
        return f"{target} cannot be reached{f': {cause}' if cause else ''}"
    if not error.reason and code == "DEADLINE_EXCEEDED":
        return f"{target} did not answer in time"
    return error.message or code


def _hint(error: OrderstreamCallError, target: str) -> str:
    if not error.reason and error.code.name == "UNAVAILABLE":
        return f"is a server running on {target}? `orderstream up` starts everything"
    if not error.reason and error.code.name == "UNIMPLEMENTED":
        return f"{target} is another server: commands, events and queries have an address each (see --help)"
    return _HINTS.get(error.reason, "")


def _exit_code(code: str) -> ExitCode:
    return _EXIT_CODES.get(code, ExitCode.REFUSED)
