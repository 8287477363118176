"""Options of commands that have prices or an address."""

from __future__ import annotations

from typing import Annotated

import typer

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
