"""The operator's settings: environment variables with the prefix EMBEDDING_OPERATOR_, set by the chart."""

from __future__ import annotations

import socket
import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class LogFormat(StrEnum):
    TEXT = "Text"
    JSON = "Json"


class LogLevel(StrEnum):
    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"


Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Everything that can be set from outside. Raises pydantic.ValidationError that names the wrong variable."""

    model_config = SettingsConfigDict(env_prefix="EMBEDDING_OPERATOR_", frozen=True)

    namespace: str = Field("default", description="Namespace of the operator itself: its Lease lives there.")
    pod_name: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}",
        description="This replica's identity in the Lease and in Events; no two may have the same.",
    )
    lease_name: str = Field("embedding-operator", description="Name of the Lease that elects the leader.")
    watch_namespaces: Names = Field((), description="Namespaces to serve, comma separated; empty means all of them.")

    runtime_image: str = Field(
        "embedding-runtime:0.1.0", description="Image reference of the bundled runtime for services that name none."
    )
    runtime_image_pull_policy: str | None = Field(None, description="imagePullPolicy that goes with it.")
    runtime_image_pull_secrets: Names = Field((), description="Pull secrets that go with it, comma separated.")

    host: str | None = Field(None, description="Address to listen on; unset means all of them.")
    port: int = Field(8080, ge=1, le=65535, description="Port of /healthz, /readyz and /metrics.")

    workers: int = Field(8, ge=1, le=256, description="How many services are reconciled at the same time.")
    resync_seconds: float = Field(
        300, ge=1, description="Every service is looked at again within this time, whatever was or was not seen."
    )
    poll_seconds: float = Field(
        30, ge=1, description="How often the Pods of a ready service are asked for identity and load."
    )
    progress_seconds: float = Field(3, ge=0.1, description="How often a service that is not ready is looked at.")
    watch_seconds: float = Field(
        60, ge=1, description="Every watch is renewed this often; silent for 2.5 times as long, it counts as stalled."
    )
    manage_monitoring: bool = Field(
        False, description="Whether ServiceMonitors, PrometheusRules and dashboards may be managed (needs the rules)."
    )

    metrics_api_enabled: bool = Field(
        False, description="Whether to serve custom.metrics.k8s.io to autoscalers (needs all namespaces)."
    )
    metrics_api_port: int = Field(8443, ge=1, le=65535, description="Port of the metrics API.")
    metrics_api_cert_dir: Path = Field(
        Path("/etc/embedding-operator/metrics-api"),
        description="Directory of its serving certificate, tls.crt and tls.key; read again when they change.",
    )
    metrics_api_read_seconds: float = Field(
        5, ge=0.1, description="How often the Pods of an autoscaled service are asked for their utilization."
    )

    log_format: LogFormat = Field(LogFormat.TEXT, description="Text for people, Json for log collectors.")
    log_level: LogLevel = Field(LogLevel.INFO, description="Debug, Info, Warning or Error.")

    @field_validator("watch_namespaces", "runtime_image_pull_secrets", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        return tuple(dict.fromkeys(value)) if isinstance(value, tuple | list) else value

    @field_validator("runtime_image_pull_policy", "host", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _one_metrics_api_per_cluster(self) -> Self:
        if self.metrics_api_enabled and self.watch_namespaces:
            raise ValueError(
                "the metrics API answers for the whole cluster: unset EMBEDDING_OPERATOR_WATCH_NAMESPACES, or set "
                "EMBEDDING_OPERATOR_METRICS_API_ENABLED=false"
            )
        return self
