"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from cqrs.errors import ConfigurationError
from cqrs.serving.settings import ServerSettings
from cqrs.serving.settings_loader import env_name, flag_name, load_settings


class ExampleSettings(ServerSettings):
    server: ClassVar[str] = "example"

    listen: str = Field("127.0.0.1:50099", description="Address.")
    cache_ttl_seconds: float = Field(60.0, gt=0, description="How long an entry is kept, in seconds. 100 % optional.")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ExampleSettings.model_fields, "config"):
        monkeypatch.delenv(env_name(name), raising=False)


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = load_settings(ExampleSettings, [])
    assert (settings.listen, settings.cache_ttl_seconds, settings.drain_seconds) == ("127.0.0.1:50099", 60.0, 10.0)


def test_flags_win_over_environment_over_table_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "orderstream.toml"
    file.write_text(
        "drain_seconds = 1\nmax_concurrent_calls = 1\nstream = 'one'\nlog_level = 'debug'\n"
        "[example]\ndrain_seconds = 2\nmax_concurrent_calls = 2\nstream = 'two'\n[another]\nunknown = 1\n"
    )
    monkeypatch.setenv("ORDERSTREAM_CONFIG", str(file))
    monkeypatch.setenv("ORDERSTREAM_DRAIN_SECONDS", "3")
    monkeypatch.setenv("ORDERSTREAM_MAX_CONCURRENT_CALLS", "3")
    settings = load_settings(ExampleSettings, ["--drain-seconds", "4"])
    assert (settings.drain_seconds, settings.max_concurrent_calls, settings.stream) == (4.0, 3, "two")
    assert settings.log_level == "debug"


def test_flags_are_typed(tmp_path: Path) -> None:
    args = ["--stop-with-parent", "--ready-file", str(tmp_path / "x"), "--log-format", "json", "--metrics-listen", ""]
    settings = load_settings(ExampleSettings, args)
    assert (settings.stop_with_parent, settings.ready_file, settings.log_format) == (True, tmp_path / "x", "json")
    assert settings.metrics_listen == ""


def test_an_empty_variable_switches_off_what_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORDERSTREAM_METRICS_LISTEN", "ORDERSTREAM_TLS_CERTIFICATE", "ORDERSTREAM_TLS_KEY"):
        monkeypatch.setenv(name, "")
    settings = load_settings(ExampleSettings, [])
    assert (settings.metrics_listen, settings.tls_certificate, settings.tls_key) == ("", None, None)


def test_help_lists_every_setting_with_its_default_and_environment_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stopped:
        load_settings(ExampleSettings, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    for name, field in ExampleSettings.model_fields.items():
        assert flag_name(name) in text
        assert field.description
        default = {None: "none", "": "none", False: "false"}.get(field.default, field.default)
        assert f"{field.description} [default: {default}; env: {env_name(name)}]" in text
    assert "example: orderstream serve example" in text


def test_every_wrong_value_is_named_with_its_flag_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERSTREAM_MAX_CONCURRENT_CALLS", "many")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(ExampleSettings, ["--cache-ttl-seconds", "0", "--log-level", "loud", "--listen", "nowhere"])
    for named in (
        "--max-concurrent-calls (ORDERSTREAM_MAX_CONCURRENT_CALLS)",
        "--cache-ttl-seconds",
        "'loud'",
        "'nowhere'",
    ):
        assert named in str(refused.value)


def test_a_key_of_the_file_that_no_setting_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "orderstream.toml"
    file.write_text("[example]\ncache_ttl = 3\n")
    with pytest.raises(ConfigurationError, match="cache_ttl"):
        load_settings(ExampleSettings, ["--config", str(file)])


@pytest.mark.parametrize("content", [b"listen = ", b"\xff\xfe", None], ids=["no TOML", "no text", "no file"])
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "orderstream.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"orderstream\.toml"):
        load_settings(ExampleSettings, ["--config", str(file)])


def test_an_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load_settings(ExampleSettings, ["--liste", "x:1"])
    assert stopped.value.code == 2
    assert "--liste" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["50051", "localhost", "localhost:", ":1", "h:65536", "h:-1", "h:1x"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        load_settings(ExampleSettings, ["--listen", address])


def test_a_message_limit_that_cannot_carry_answers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="65536"):
        load_settings(ExampleSettings, ["--max-message-bytes", "1024"])
