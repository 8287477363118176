"""Options of everything that sends a command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

RequestId = Annotated[
    str,
    typer.Option(
        metavar="ID",
        help="Makes the command safe to repeat: the same id again changes nothing. One is made if not given.",
    ),
]
ExpectedVersion = Annotated[
    int | None,
    typer.Option(metavar="N", help="Only if it is at this version (as last seen); else it is refused as a conflict."),
]
OccurTime = Annotated[
    str, typer.Option(metavar="TIME", help="For facts from the past: when it happened, as in 2026-05-01T12:30:00Z.")
]
Currency = Annotated[str, typer.Option(metavar="CODE", help="ISO 4217 code of the prices.")]
Recipient = Annotated[str, typer.Option(metavar="NAME", help="Who receives it.", rich_help_panel="Address")]
Lines = Annotated[
    list[str] | None,
    typer.Option("--line", metavar="TEXT", help="Street line; up to 4 times.", rich_help_panel="Address"),
]
City = Annotated[str, typer.Option(metavar="NAME", help="Town.", rich_help_panel="Address")]
Region = Annotated[str, typer.Option(metavar="NAME", help="State or province.", rich_help_panel="Address")]
PostalCode = Annotated[str, typer.Option(metavar="CODE", help="Postal code.", rich_help_panel="Address")]
Country = Annotated[
    str, typer.Option(metavar="CODE", help="ISO 3166-1 code: two letters, such as DE.", rich_help_panel="Address")
]


def common_fields(request_id: str, expected_version: int | None, occur_time: str) -> dict[str, Any]:
    """The fields that every command has. Without a request id, a new one."""
    from cli.arguments import timestamp
    from cqrs.ids import new_id

    return {
        "request_id": request_id or f"cli-{new_id()}",
        "expected_version": expected_version,
        "occur_time": timestamp(occur_time) if occur_time else None,
    }
