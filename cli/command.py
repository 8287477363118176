"""How commands are registered: with examples on their help page, and one way for errors to end."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer
from rich.markup import escape

from cli import console
from cli.exit_codes import ExitCode
from cli.failures import CliError, ServerRefused

P = ParamSpec("P")


def examples(*lines: str) -> str:
    """The end of a help page: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {escape(line)}" for line in lines)


def help_text(function: Callable[..., object]) -> str:
    """The docstring as a help page has it: each paragraph one line, to be broken where the terminal ends."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(escape(" ".join(paragraph.split())) for paragraph in paragraphs)


def command(
    app: typer.Typer, name: str, *example_lines: str, pass_on: bool = False
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a function as a command of `app`.

    Args:
        app: the group.
        name: the command's name.
        example_lines: for its help page.
        pass_on: unknown options, `--help` included, are arguments: another parser reads them.
    """
    settings: dict[str, bool] = {"ignore_unknown_options": True, "allow_extra_args": True} if pass_on else {}

    def register(function: Callable[P, None]) -> Callable[P, None]:
        text = help_text(function)
        app.command(
            name,
            help=text,
            short_help=text.partition(". ")[0].rstrip("."),
            epilog=examples(*example_lines),
            context_settings=settings,
            add_help_option=not pass_on,
        )(guarded(function))
        return function

    return register


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """Let `function` end as a command does: errors told on stderr, and the exit status that belongs to them."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                function(*args, **kwargs)
            finally:
                _flush()
        except CliError as error:
            reason = error.reason or error.code if isinstance(error, ServerRefused) else ""
            console.fail(error.message, reason=reason, details=error.details, hint=error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console.note("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except BrokenPipeError as error:
            # Whoever read our output, which goes on and on, has seen enough (`| head`).
            console.discard_output()
            raise typer.Exit(ExitCode.OK) from error
        except Exception as error:
            operator_error = _operator_error()
            if operator_error is None or not isinstance(error, operator_error):
                raise
            console.fail(str(error))
            raise typer.Exit(ExitCode.CONFIG) from error

    return run


def _flush() -> None:
    """Write out what is on its way to stdout. If nobody wants it, the status is what it is without that."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        console.discard_output()


def _operator_error() -> type[Exception] | None:
    """The type of what only an operator can mend; None while nothing that raises it has been imported."""
    errors = sys.modules.get("cqrs.errors")
    return getattr(errors, "OperatorError", None)
