"""NVIDIA NIM's environment variables, 1.x and 2.x, as further names of our settings.

Newer spellings win over older ones, and our own over all of them. Variables that NIM knows and that mean nothing here
are named in a log line, so that nobody relies on them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from embedding_runtime.errors import SettingsError

Converter = Callable[[str], Any]


def _host(value: str) -> str:
    host = _address(value)[0].strip("[]")
    # Every address, in both families, is what an empty host means here.
    return "" if host in ("0.0.0.0", "::", "*") else host  # noqa: S104


def _port(value: str) -> str:
    return _address(value)[1]


def _address(value: str) -> tuple[str, str]:
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError("expected ADDRESS:PORT")
    return host, port


def _precision(value: str) -> str:
    known = {"fp16": "Float16", "bf16": "BFloat16", "fp32": "Float32"}
    if value.lower() not in known:
        raise ValueError(f"supported are {', '.join(known)}")
    return known[value.lower()]


def _level(value: str) -> str:
    known = {"trace": "Debug", "debug": "Debug", "default": "Info", "info": "Info", "unset": "Info", "warn": "Warning",
             "warning": "Warning", "error": "Error", "critical": "Error"}  # fmt: skip
    if value.lower() not in known:
        raise ValueError(f"supported are {', '.join(known)}")
    return known[value.lower()]


def _rust_log(value: str) -> str:
    """The level for everything in a filter such as `info` or `warn,hyper=off`; parts for single targets are theirs."""
    for directive in value.split(","):
        level = directive.strip().lower()
        if level and "=" not in level:
            # Off has no equal here: errors are always told.
            return "Error" if level == "off" else _level(level)
    return "Info"


def _log_format(value: str) -> str:
    known = {"pretty": "Text", "compact": "Text", "json": "Json"}
    if value.lower() not in known:
        raise ValueError(f"supported are {', '.join(known)}")
    return known[value.lower()]


def _switch(value: str) -> bool:
    if value.lower() not in ("0", "1", "true", "false"):
        raise ValueError("expected 0 or 1")
    return value.lower() in ("1", "true")


def _jsonl(value: str) -> str:
    return "Json" if _switch(value) else "Text"


def _cpu_only(value: str) -> str:
    return "Cpu" if _switch(value) else "Auto"


# By setting, the variables that may give it: newest spelling first.
VARIABLES: Mapping[str, tuple[tuple[str, Converter], ...]] = {
    "host": (("NIM_SERVER_BIND_ADDR", _host), ("NIM_BIND_ADDR", _host)),
    "port": (
        ("NIM_SERVER_BIND_ADDR", _port),
        ("NIM_BIND_ADDR", _port),
        ("NIM_SERVER_PORT", str),
        ("NIM_HTTP_API_PORT", str),
    ),
    "served_model_name": (("NIM_SERVER_SERVED_MODEL_NAME", str), ("NIM_SERVED_MODEL_NAME", str)),
    "cache_dir": (("NIM_CACHE_PATH", str),),
    "max_wait_milliseconds": (("NIM_SERVER_MAX_WAIT_MS", str), ("NIM_MAX_WAIT_MS", str)),
    "max_batch_items": (("NIM_PIPELINE_MAX_BATCH_SIZE", str), ("NIM_TRITON_MAX_BATCH_SIZE", str)),
    "max_input_tokens": (("NIM_PIPELINE_MAX_SEQ_LEN", str), ("NIM_TRITON_MAX_SEQ_LENGTH", str)),
    "max_queued_requests": (("NIM_SERVER_MAX_QUEUE_SIZE", str), ("NIM_MAX_QUEUE_SIZE", str)),
    "max_body_bytes": (("NIM_SERVER_HTTP_BODY_LIMIT_BYTES", str), ("NIM_HTTP_BODY_LIMIT_BYTES", str)),
    "max_image_bytes": (("NIM_SERVER_MAX_IMAGE_BYTES", str), ("NIM_MAX_IMAGE_BYTES", str)),
    "request_timeout_seconds": (("NIM_SERVER_REQUEST_TIMEOUT_S", str), ("NIM_REQUEST_TIMEOUT_S", str)),
    "tls_cert_file": (("NIM_SERVER_TLS_CERT_PATH", str), ("NIM_TLS_CERT_PATH", str)),
    "tls_key_file": (("NIM_SERVER_TLS_KEY_PATH", str), ("NIM_TLS_KEY_PATH", str)),
    "precision": (("NIM_ENGINE_PRECISION", _precision), ("NIM_PRECISION", _precision)),
    "device": (("NIM_CPU_ONLY", _cpu_only),),
    "otlp_endpoint": (("OTEL_EXPORTER_OTLP_ENDPOINT", str),),
    "log_level": (("RUST_LOG", _rust_log), ("NIM_LOG_LEVEL", _level)),
    "log_format": (("LOG_FORMAT", _log_format), ("NIM_JSONL_LOGGING", _jsonl), ("NIM_LOGGING_JSONL", _jsonl)),
}
_WITHOUT_EFFECT = re.compile(
    r"NIM_(SERVER_)?GRPC_\w+|NIM_ENGINE_COUNT|NIM_NUM_MODEL_INSTANCES|NIM_NUM_TOKENIZERS|NIM_HTTP_MAX_WORKERS|"
    r"NIM_HTTP_TRITON_PORT|NIM_TRITON_GRPC_PORT|NIM_MODEL_PROFILE|NIM_MANIFEST_ALLOW_UNSAFE|NIM_ADMISSION_SIZE|"
    r"NIM_IGNORE_MODEL_DOWNLOAD_FAIL|NIM_MODEL_DOWNLOAD_PROVIDER|NIM_ENABLE_OTEL|NIM_TRITON_PERFORMANCE_MODE|"
    r"NIM_PERFORMANCE_MODE|NGC_API_KEY"
)


def chosen(setting: str, environment: Mapping[str, str]) -> tuple[str, str, Converter] | None:
    """The variable that gives a setting, its value and its conversion; None when none of them is set."""
    for variable, convert in VARIABLES.get(setting, ()):
        if value := environment.get(variable):
            return variable, value, convert
    return None


def without_effect(environment: Mapping[str, str]) -> list[str]:
    """Variables of NIM that are set and mean nothing here."""
    return sorted(name for name in environment if _WITHOUT_EFFECT.fullmatch(name))


class NimSource(PydanticBaseSettingsSource):
    """The settings that NIM's variables give. Raises SettingsError naming the variable with an unusable value."""

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        super().__init__(settings_class)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        found = chosen(field_name, os.environ)
        if found is None:
            return None, field_name, False
        variable, value, convert = found
        try:
            return convert(value), field_name, False
        except ValueError as error:
            raise SettingsError(f"{variable} has the unusable value {value!r}: {error}") from error

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields.items()
        values = {name: self.get_field_value(field, name)[0] for name, field in fields}
        return {name: value for name, value in values.items() if value is not None}
