"""Every setting of the server: flag, environment variable, default and what it is for, in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from embedding_runtime import nim_variables
from embedding_runtime.engine.model import Pooling
from embedding_runtime.errors import SettingsError

PREFIX = "EMBEDDING_"


class Precision(StrEnum):
    """Numbers the model computes with.

    Auto: BFloat16 (on CUDA else Float16) where the device is measured to be made for it, else Float32. Int8: CPUs only.
    """

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"


class Device(StrEnum):
    """Where the model runs. Auto: CUDA when there is a device."""

    AUTO = "Auto"
    CPU = "Cpu"
    CUDA = "Cuda"


class LogFormat(StrEnum):
    """Lines for people or for machines."""

    TEXT = "Text"
    JSON = "Json"


class LogLevel(StrEnum):
    """The least important lines that are written."""

    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


def default_cache() -> Path:
    """XDG_CACHE_HOME or ~/.cache when that can be written, else /tmp: containers run under any UID."""
    given = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("HOME", "") and f"{os.environ['HOME']}/.cache")
    base = Path(given or "/")
    existing = next(path for path in (base, *base.parents) if path.exists())
    writable = base.is_absolute() and existing != existing.parent and os.access(existing, os.W_OK)
    return (base if writable else Path("/tmp")) / "embedding-runtime"  # noqa: S108


def _is_service_link(field: str) -> bool:
    return field == "port" and os.environ.get(variable("port"), "").startswith(("tcp://", "udp://"))


class _Environment(EnvSettingsSource):
    """Our own variables, without the one that a Service named "embedding" puts in the place of our port."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        if _is_service_link("port"):
            values.pop("port", None)
        return values


class Settings(BaseSettings):
    """Flags win over our variables, those over NIM's, those over defaults. An empty variable counts as absent."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", validate_default=True
    )

    model: str = Field(
        default="",
        description="Model directory, or owner/name of a Hugging Face repository. HF_TOKEN is used for private ones.",
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the repository; pin a commit.")
    served_model_name: str | None = Field(
        default=None, description="Id that clients send as \"model\" [the repository's or directory's name]."
    )
    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Further ids, comma separated; --alias can be repeated instead."
    )
    host: str = Field(default="", description="Address to listen on [every address, IPv4 and IPv6].")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    cache_dir: Path = Field(default_factory=default_cache, description="Where downloads and fingerprints are kept.")
    expected_fingerprint: str | None = Field(
        default=None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="Refuse to serve a model with any other fingerprint, so that vector spaces never mix.",
    )
    max_input_tokens: int | None = Field(default=None, ge=1, description="Token limit of an input [the model's].")
    pooling: Pooling | None = Field(
        default=None, description=f"How token vectors become one [the model's]: {', '.join(Pooling)}."
    )
    query_prompt: str | None = Field(default=None, description="Text put before queries [the model's].")
    passage_prompt: str | None = Field(default=None, description="Text put before passages [the model's].")
    precision: Precision = Field(
        default=Precision.AUTO,
        description=f"{', '.join(Precision)}. Auto measures which of Float32, BFloat16 and (on CUDA) Float16 is fast "
        "here; Int8 is for CPUs and costs accuracy.",
    )
    device: Device = Field(default=Device.AUTO, description=f"{', '.join(Device)}.")
    threads: int | None = Field(
        default=None, ge=1, description="Threads that compute on a CPU [the container's processors]."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Batches computed side by side [on a CPU one per thread, at most 8; on a GPU one].",
    )
    max_wait_milliseconds: float = Field(
        default=10,
        ge=0,
        allow_inf_nan=False,
        le=60_000,
        description="Longest wait of an idle engine for more requests to share a batch.",
    )
    max_batch_tokens: int | None = Field(default=None, ge=1, description="Token budget of a batch [by device].")
    max_batch_tiles: int | None = Field(default=None, ge=1, description="Most tiles of images in a batch [by device].")
    max_batch_items: int = Field(default=1024, ge=1, description="Most inputs in a batch.")
    max_queued_tokens: int = Field(
        default=1_000_000, ge=1, description="Tokens that may wait; beyond that requests get 429 with retry-after."
    )
    max_queued_requests: int | None = Field(
        default=None, ge=1, description="Requests that may wait [any number; tokens are what counts]."
    )
    max_body_bytes: int = Field(default=128 * 1024 * 1024, ge=1, description="Largest body of a request.")
    max_image_bytes: int = Field(default=25 * 1024 * 1024, ge=1, description="Largest file of an image, decoded.")
    max_request_images: int = Field(default=128, ge=1, description="Most images in a request.")
    max_images_in_progress: int = Field(
        default=256,
        ge=1,
        description="Images of all requests in progress; beyond that requests get 429. Up to 6 MB each.",
    )
    image_workers: int | None = Field(
        default=None, ge=1, le=64, description="Images decoded at a time [half the processors, at most 8]."
    )
    request_timeout_seconds: float = Field(
        default=120, gt=0, allow_inf_nan=False, description="Longest a request may wait for its answer."
    )
    drain_timeout_seconds: float = Field(
        default=30, ge=0, allow_inf_nan=False, description="After SIGTERM, longest time to go on answering requests."
    )
    api_keys_dir: Path | None = Field(
        default=None, description="Directory with one file per client (name: the client, content: its key) [open]."
    )
    tls_cert_file: Path | None = Field(default=None, description="PEM certificate chain; with the key: HTTPS.")
    tls_key_file: Path | None = Field(default=None, description="PEM private key of the certificate.")
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of an OTLP/HTTP collector, such as http://collector:4318, that gets a trace of every "
        "request [no traces]. OTEL_EXPORTER_OTLP_ENDPOINT is read too.",
    )
    log_format: LogFormat = Field(default=LogFormat.TEXT, description=f"{', '.join(LogFormat)}.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description=f"{', '.join(LogLevel)}.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), nim_variables.NimSource(settings_cls)

    @field_validator("model_aliases", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError(
                "--tls-cert-file (EMBEDDING_TLS_CERT_FILE) and --tls-key-file (EMBEDDING_TLS_KEY_FILE) "
                "must be given together"
            )
        return self

    @model_validator(mode="after")
    def _int8_is_for_cpus(self) -> Settings:
        if self.precision is Precision.INT8 and self.device is Device.CUDA:
            raise ValueError(
                "--precision Int8 (EMBEDDING_PRECISION) is for CPUs; use --device Cpu, or Auto, BFloat16 or Float16"
            )
        return self

    @property
    def served_name(self) -> str:
        """The model's id: as configured, else the repository's or directory's name."""
        if self.served_model_name:
            return self.served_model_name
        path = Path(self.model)
        return path.resolve().name if path.is_dir() else self.model


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{field.upper()}"


def flag(field: str) -> str:
    """The command line flag of a setting."""
    return f"--{field.replace('_', '-')}"


def origin(field: str, flags: Mapping[str, Any]) -> str:
    """Where a setting's value comes from: a flag, an environment variable, or the default."""
    if flags.get(field) is not None:
        return flag(field)
    if os.environ.get(variable(field)) and not _is_service_link(field):
        return variable(field)
    found = nim_variables.chosen(field, os.environ)
    return found[0] if found else "default"


def load(flags: Mapping[str, Any]) -> Settings:
    """The settings from flags that are not None and the environment. Raises SettingsError naming the culprit."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise SettingsError(message) from error
        culprit = origin(str(first["loc"][0]), given)
        raise SettingsError(f"{culprit} has the unusable value {first['input']!r}: {message}") from error


def warnings() -> list[str]:
    """What the environment holds that looks like a setting but is none."""
    known = {variable(name) for name in Settings.model_fields}
    # Kubernetes describes every Service to every Pod in variables; one named "embedding" uses our prefix.
    service = re.compile(rf"{PREFIX}(SERVICE_\w+|PORT_\d+_\w+)")
    ours = (name for name in os.environ if name.startswith(PREFIX))
    unknown = sorted(name for name in ours if name not in known and not service.fullmatch(name))
    return [f"{name} is not a setting of this server (embedding-runtime settings lists them)" for name in unknown] + [
        f"{name} has no effect on this server" for name in nim_variables.without_effect(os.environ)
    ]
