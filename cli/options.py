"""Options that many commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
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


def with_connection(function: Callable[Concatenate[Connection, P], None]) -> Callable[P, None]:
    """Give a command the options that say where the servers are; it gets them as its first argument, a Connection."""
    # Typer reads options from a signature: this one has those of `function`, less the Connection, and the common ones.
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[1:]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=Connection._field_defaults[name], annotation=annotation
        )
        for name, annotation in _CONNECTION_OPTIONS.items()
    ]

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        options: dict[str, Any] = dict(kwargs)
        connection = Connection(**{name: options.pop(name) for name in _CONNECTION_OPTIONS})
        function(connection, *args, **options)

    hints = get_type_hints(function, include_extras=True)
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own] + common
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what inspect reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    del run.__wrapped__  # or inspect would read on behind us
    return run
