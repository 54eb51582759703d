"""Settings: flags over our variables over NIM's over defaults, each with its origin, and culprits that are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from embedding_runtime.cli import app
from embedding_runtime.errors import SettingsError
from embedding_runtime.openmp import wait_policy
from embedding_runtime.settings import Device, LogFormat, LogLevel, Precision, Settings, load, origin, warnings
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("EMBEDDING_", "NIM_", "LOG_", "NGC_", "RUST_", "SHOW_")):
            monkeypatch.delenv(name)


def test_flags_win_over_variables_those_over_nims_those_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load({}).port, origin("port", {})) == (8000, "default")
    monkeypatch.setenv("NIM_HTTP_API_PORT", "8001")
    assert (load({}).port, origin("port", {})) == (8001, "NIM_HTTP_API_PORT")
    monkeypatch.setenv("NIM_BIND_ADDR", "127.0.0.1:8002")
    assert (load({}).port, load({}).host, origin("host", {})) == (8002, "127.0.0.1", "NIM_BIND_ADDR")
    monkeypatch.setenv("NIM_SERVER_BIND_ADDR", "[::]:8003")
    assert (load({}).port, load({}).host) == (8003, "")
    monkeypatch.setenv("EMBEDDING_PORT", "8004")
    assert (load({}).port, origin("port", {})) == (8004, "EMBEDDING_PORT")
    assert (load({"port": "8005"}).port, origin("port", {"port": "8005"})) == (8005, "--port")
    monkeypatch.setenv("EMBEDDING_PORT", "")
    assert load({}).port == 8003


@pytest.mark.parametrize(
    ("variable", "value", "setting", "expected"),
    [
        ("NIM_MAX_WAIT_MS", "3", "max_wait_milliseconds", 3.0),
        ("NIM_SERVER_MAX_WAIT_MS", "0", "max_wait_milliseconds", 0.0),
        ("NIM_TRITON_MAX_BATCH_SIZE", "64", "max_batch_items", 64),
        ("NIM_PIPELINE_MAX_BATCH_SIZE", "16", "max_batch_items", 16),
        ("NIM_PIPELINE_MAX_SEQ_LEN", "512", "max_input_tokens", 512),
        ("NIM_TRITON_MAX_SEQ_LENGTH", "512", "max_input_tokens", 512),
        ("NIM_MAX_QUEUE_SIZE", "1024", "max_queued_requests", 1024),
        ("NIM_SERVER_HTTP_BODY_LIMIT_BYTES", "1000", "max_body_bytes", 1000),
        ("NIM_REQUEST_TIMEOUT_S", "60", "request_timeout_seconds", 60.0),
        ("NIM_SERVED_MODEL_NAME", "acme/m", "served_model_name", "acme/m"),
        ("NIM_CACHE_PATH", "/opt/nim/.cache", "cache_dir", Path("/opt/nim/.cache")),
        ("NIM_SERVER_PORT", "9", "port", 9),
        ("NIM_PRECISION", "fp16", "precision", Precision.FLOAT16),
        ("NIM_CPU_ONLY", "1", "device", Device.CPU),
        ("NIM_LOG_LEVEL", "WARNING", "log_level", LogLevel.WARNING),
        ("NIM_JSONL_LOGGING", "1", "log_format", LogFormat.JSON),
        ("LOG_FORMAT", "pretty", "log_format", LogFormat.TEXT),
        ("LOG_FORMAT", "compact", "log_format", LogFormat.TEXT),
        ("LOG_FORMAT", "json", "log_format", LogFormat.JSON),
        ("RUST_LOG", "warn", "log_level", LogLevel.WARNING),
        ("RUST_LOG", "off", "log_level", LogLevel.ERROR),
        ("RUST_LOG", "hyper=off", "log_level", LogLevel.INFO),
        ("RUST_LOG", "hyper=trace, DEBUG,tower=off", "log_level", LogLevel.DEBUG),
        ("EMBEDDING_MODEL_ALIASES", "a, b,", "model_aliases", ("a", "b")),
    ],
)
def test_variables(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: str, expected: object) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load({}), setting) == expected
    assert origin(setting, {}) == variable


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMBEDDING_PORT", "many"),
        ("EMBEDDING_PRECISION", "fp16"),
        ("EMBEDDING_EXPECTED_FINGERPRINT", "abc"),
        ("EMBEDDING_MAX_BATCH_TOKENS", "0"),
        ("NIM_PRECISION", "fp8"),
        ("NIM_ENGINE_PRECISION", "nvfp4"),
        ("NIM_MAX_WAIT_MS", "soon"),
        ("NIM_BIND_ADDR", "localhost"),
        ("NIM_LOG_LEVEL", "LOUD"),
        ("RUST_LOG", "loud"),
        ("LOG_FORMAT", "xml"),
        ("NIM_CPU_ONLY", "maybe"),
    ],
)
def test_an_unusable_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable} has the unusable value '{value}'"):
        load({})


def test_a_service_called_embedding_does_not_take_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes gives every Pod variables of every Service; that one's spells like our port."""
    monkeypatch.setenv("EMBEDDING_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("EMBEDDING_PORT_8000_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("EMBEDDING_SERVICE_HOST", "10.0.0.1")
    assert (load({}).port, origin("port", {}), warnings()) == (8000, "default", [])


def test_misspelt_and_meaningless_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PROT", "1")
    monkeypatch.setenv("NIM_ENGINE_COUNT", "2")
    assert [warning.split()[0] for warning in warnings()] == ["EMBEDDING_PROT", "NIM_ENGINE_COUNT"]


TEMPORARY = "/tmp"


@pytest.mark.parametrize("home", [None, "", "/", "/nonexistent", "relative", "{tmp}"])
def test_the_cache_is_somewhere_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home.format(tmp=tmp_path))
    expected = tmp_path / ".cache" if home == "{tmp}" else Path(TEMPORARY)
    assert load({}).cache_dir == expected / "embedding-runtime"


def test_the_settings_command_shows_value_and_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_POOLING", "Cls")
    monkeypatch.setenv("NIM_MAX_WAIT_MS", "7")
    result = CliRunner().invoke(app, ["settings", "--port", "1234", "--alias", "a", "--alias", "b"])
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:]}
    assert rows["pooling"] == ["Cls", "EMBEDDING_POOLING"]
    assert rows["max_wait_milliseconds"] == ["7.0", "NIM_MAX_WAIT_MS"]
    assert rows["port"] == ["1234", "--port"]
    assert rows["model_aliases"] == ["a,b", "--model-aliases"]
    assert rows["log_level"] == ["Info", "default"]
    # And how torch's threads wait, which torch's libraries read from the environment.
    assert rows.keys() == Settings.model_fields.keys() | {wait_policy(os.environ)[0]}


def test_int8_on_a_gpu_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match=r"--precision Int8 \(EMBEDDING_PRECISION\) is for CPUs"):
        load({"precision": "Int8", "device": "Cuda"})
    assert load({"precision": "Int8", "device": "Auto"}).precision == "Int8"


def test_newer_spellings_of_the_log_level_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIM_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("RUST_LOG", "debug")
    assert (load({}).log_level, origin("log_level", {})) == (LogLevel.DEBUG, "RUST_LOG")
    monkeypatch.setenv("EMBEDDING_LOG_LEVEL", "Warning")
    assert (load({}).log_level, origin("log_level", {})) == (LogLevel.WARNING, "EMBEDDING_LOG_LEVEL")


def test_help_names_every_variable() -> None:
    text = CliRunner().invoke(app, ["serve", "--help"]).output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"EMBEDDING_{name.upper()}" in text
    assert "Exit statuses" in text
