"""Loads settings for a command line: `--help`, flags, environment and the TOML file."""

from __future__ import annotations

import argparse
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from cqrs.errors import ConfigurationError
from cqrs.serving.settings import ENV_PREFIX, ServerSettings

CONFIG_ENV = f"{ENV_PREFIX}CONFIG"
"""The environment variable that names the settings file."""

SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def load_settings(cls: type[SettingsT], args: Sequence[str], *, program: str | None = None) -> SettingsT:
    """The settings that a command line, the environment and the settings file amount to.

    Flags win over environment variables, these over the file, the file over defaults. In the file, keys at the top are
    for every server, those in a table named after the server are for that server only.

    Args:
        cls: the server's settings class.
        args: flags, without the program's name: `["--listen", "0.0.0.0:50051"]`.
        program: how the help page calls the command; `orderstream serve <server>` if not given.

    Raises:
        ConfigurationError: a value or key is wrong; the message names each.
        SystemExit: after `--help` (0) or a flag that does not exist (2).
    """
    flags = vars(_parser(cls, program or f"orderstream serve {cls.server}").parse_args(args))
    file = flags.pop("config", None) or os.environ.get(CONFIG_ENV) or None
    values: dict[str, Any] = {}
    if file is not None:
        values.update(_read_file(cls, Path(file)))
    values.update(EnvSettingsSource(cls)())
    values.update(flags)
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigurationError(_explain(cls, error)) from error


def env_name(field: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{field.upper()}"


def flag_name(field: str) -> str:
    """The command line flag of a setting."""
    return f"--{field.replace('_', '-')}"


def _parser(cls: type[ServerSettings], program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Each setting can be given as a flag, as an environment variable or in a TOML file, in this "
        "order of precedence.",
        epilog=f"example: {program} --listen 127.0.0.1:0 --log-format json --drain-seconds 30",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    table = f"; keys in its table [{cls.server}] are for this server only" if cls.server else ""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings{table}. [default: none; env: {CONFIG_ENV}]"
    )
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        help_text = f"{field.description} [default: {_shown(default)}; env: {env_name(name)}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag_name(name), dest=name, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            parser.add_argument(flag_name(name), dest=name, metavar=_metavar(field), help=help_text)
    return parser


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None or default == "" else str(default)


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 110)
        super().__init__(prog, max_help_position=34, width=width)


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(annotation)) + "}"
    return {int: "N", float: "NUMBER", Path: "FILE"}.get(annotation, "TEXT") if isinstance(annotation, type) else "TEXT"


def _read_file(cls: type[ServerSettings], file: Path) -> Mapping[str, Any]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the settings file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings file {file} is not TOML: {error}") from error
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    values = {key: value for key, value in content.items() if key not in tables}
    values.update(tables.get(cls.server, {}))
    unknown = sorted(key for key in values if key not in cls.model_fields)
    if unknown:
        raise ConfigurationError(
            f"the settings file {file} has keys that the {cls.server} server does not know: {', '.join(unknown)} "
            "(settings of one server belong in the table named after it)"
        )
    return values


def _explain(cls: type[ServerSettings], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in problem["loc"])
        if field in cls.model_fields:
            lines.append(f"{flag_name(field)} ({env_name(field)}): {message}; got {problem['input']!r}")
        else:
            lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)
