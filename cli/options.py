"""Options that many commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Concatenate, NamedTuple, ParamSpec, get_type_hints

import typer

from cli.console import OutputFormat

P = ParamSpec("P")

Output = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", help="How data is printed on stdout: text for people, json, or a json line each."),
]
DataDir = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", envvar="ORDERSTREAM_DATA", help="The data directory of `orderstream up`."),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Consistency token of a command or an earlier answer: show at least its effect.",
    ),
]
MaxWait = Annotated[
    float,
    typer.Option(
        "--max-wait", min=0, max=30, metavar="SECONDS", help="How long to wait until the read model shows the token."
    ),
]
NatsUrl = Annotated[
    str,
    typer.Option(metavar="URL", envvar="ORDERSTREAM_NATS_URL", show_default="that of DIR", help="The broker."),
]
StreamName = Annotated[str, typer.Option(metavar="NAME", envvar="ORDERSTREAM_STREAM", help="The stream.")]
SubjectPrefix = Annotated[
    str, typer.Option(metavar="TOKEN", envvar="ORDERSTREAM_SUBJECT_PREFIX", help="First token of its subjects.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

_SERVERS = "Servers"
_CONNECTION_OPTIONS = {
    "command_server": Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="ORDERSTREAM_COMMAND_SERVER",
            help="The command server.",
            rich_help_panel=_SERVERS,
        ),
    ],
    "query_server": Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", envvar="ORDERSTREAM_QUERY_SERVER", help="The query server.", rich_help_panel=_SERVERS
        ),
    ],
    "tls_server_ca": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ORDERSTREAM_TLS_SERVER_CA",
            help="PEM file of CAs that sign the servers. Given: calls use TLS.",
            rich_help_panel=_SERVERS,
        ),
    ],
    "tls_client_certificate": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM file of the certificate to show to the servers.", rich_help_panel=_SERVERS
        ),
    ],
    "tls_client_key": Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of its private key.", rich_help_panel=_SERVERS)
    ],
    "timeout": Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long a call may take.", rich_help_panel=_SERVERS)
    ],
}


class Connection(NamedTuple):
    """Where the servers are and how to reach them."""

    command_server: str = "127.0.0.1:50051"
    query_server: str = "127.0.0.1:50052"
    tls_server_ca: Path | None = None
    tls_client_certificate: Path | None = None
    tls_client_key: Path | None = None
    timeout: float = 10.0
    """Seconds that a call may take."""


_AUDIT = "Audit trail"
_COMMAND_OPTIONS = {
    "request_id": Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Makes the command safe to repeat: the same id again changes nothing. One is made if not given.",
        ),
    ],
    "expected_version": Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Only if it is at this version (as last seen); else it is refused as a conflict."
        ),
    ],
    "occur_time": Annotated[
        str,
        typer.Option(metavar="TIME", help="For facts from the past: when it happened, as in 2026-05-01T12:30:00Z."),
    ],
    "actor": Annotated[
        str,
        typer.Option(metavar="NAME", envvar="ORDERSTREAM_ACTOR", help="Who sends the command.", rich_help_panel=_AUDIT),
    ],
    "why": Annotated[
        str,
        typer.Option(metavar="TEXT", help="Why it is sent: a ticket, a phone call.", rich_help_panel=_AUDIT),
    ],
    "correlation_id": Annotated[
        str,
        typer.Option(metavar="ID", help="Joins all that belongs to one business process.", rich_help_panel=_AUDIT),
    ],
    "causation_id": Annotated[
        str,
        typer.Option(
            metavar="ID", help="Id of the event, or request id of the command, that led to it.", rich_help_panel=_AUDIT
        ),
    ],
}


class CommandOptions(NamedTuple):
    """What every command can be sent with. The last four go into its events."""

    request_id: str = ""
    expected_version: int | None = None
    occur_time: str = ""
    actor: str = ""
    why: str = ""
    correlation_id: str = ""
    causation_id: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields that every request of a command has. Without a request id, a new one."""
        from cli.arguments import timestamp
        from cqrs.ids import new_id

        return {
            "request_id": self.request_id or f"cli-{new_id()}",
            "expected_version": self.expected_version,
            "occur_time": timestamp(self.occur_time) if self.occur_time else None,
        }

    def metadata(self) -> list[tuple[str, str]]:
        """What goes with the call."""
        pairs = (
            ("x-actor", self.actor),
            ("x-reason", self.why),
            ("x-correlation-id", self.correlation_id),
            ("x-causation-id", self.causation_id),
        )
        for key, value in pairs:
            if not (value.isascii() and value.isprintable()):
                raise typer.BadParameter(f"{key} must be printable ASCII, as gRPC's metadata are")
        return [pair for pair in pairs if pair[1]]


def with_connection(function: Callable[Concatenate[Connection, P], None]) -> Callable[P, None]:
    """Give a command the options that say where the servers are; it gets them as its first argument, a Connection."""
    return _with_bundles(function, ((Connection, _CONNECTION_OPTIONS),))


def with_command_options(
    function: Callable[Concatenate[Connection, CommandOptions, P], None],
) -> Callable[P, None]:
    """The same, and as its second argument what every command can be sent with."""
    return _with_bundles(function, ((Connection, _CONNECTION_OPTIONS), (CommandOptions, _COMMAND_OPTIONS)))


def _with_bundles(function: Callable[..., None], bundles: Sequence[tuple[Any, Mapping[str, Any]]]) -> Callable[P, None]:
    # Typer reads options from a signature: this one has those of `function`, less the bundles, and what is in these.
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[len(bundles) :]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=bundle._field_defaults[name], annotation=annotation
        )
        for bundle, options in reversed(bundles)
        for name, annotation in options.items()
    ]

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        given: dict[str, Any] = dict(kwargs)
        made = [bundle(**{name: given.pop(name) for name in options}) for bundle, options in bundles]
        function(*made, *args, **given)

    hints = get_type_hints(function, include_extras=True)
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own] + common
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what inspect reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    del run.__wrapped__  # or inspect would read on behind us
    return run
