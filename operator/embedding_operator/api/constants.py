"""Names that are API: group, labels, annotations, field managers, and the variables the runtime reads."""

from __future__ import annotations

from typing import Final

GROUP: Final = "embedding-operator.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "EmbeddingService"
LIST_KIND: Final = "EmbeddingServiceList"
PLURAL: Final = "embeddingservices"
SINGULAR: Final = "embeddingservice"
SHORT_NAME: Final = "emb"
CATEGORY: Final = "ai"

SERVICE_LABEL: Final = f"{GROUP}/service"
"""On every child and Pod, its value the EmbeddingService's name. It alone is the selector of children."""

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
MANAGER: Final = "embedding-operator"

FIELD_MANAGER: Final = "embedding-operator"
REPLICAS_FIELD_MANAGER: Final = "embedding-operator-replicas"
"""Holds the live replica count while the ownership of `replicas` changes hands."""

CONTAINER_NAME: Final = "runtime"
PORT_NAME: Final = "http"
GRPC_PORT_NAME: Final = "grpc"
METRICS_PORT_NAME: Final = "metrics"
RUNTIME_PORT: Final = 8000

UTILIZATION_METRIC: Final = "embedding_utilization"
"""The runtime's own demand over capacity; 1.0 is saturated."""

HEALTH_LIVE_PATH: Final = "/v1/health/live"
HEALTH_READY_PATH: Final = "/v1/health/ready"
MANIFEST_PATH: Final = "/v1/manifest"
METRICS_PATH: Final = "/v1/metrics"

MAX_NAME_LENGTH: Final = 50

RESERVED_VOLUMES: Final = ("accelerator", "api-keys", "cache", "model", "shm", "tls", "tmp")
"""Volume names that the operator renders; podTemplate must use others."""

RESERVED_MOUNT_PATHS: Final = (
    "/cache",
    "/dev/shm",  # noqa: S108 - a mount path in the container
    "/etc/embedding/api-keys",
    "/etc/embedding/tls",
    "/model",
    "/model-store",
    "/tmp",  # noqa: S108 - a mount path in the container
)
"""Mount paths that the operator renders into the runtime container."""

RUNTIME_VARIABLES: Final = (
    "EMBEDDING_API_KEYS_DIR",
    "EMBEDDING_CACHE_DIR",
    "EMBEDDING_DEVICE",
    "EMBEDDING_DRAIN_TIMEOUT_SECONDS",
    "EMBEDDING_EXPECTED_FINGERPRINT",
    "EMBEDDING_MAX_BATCH_ITEMS",
    "EMBEDDING_MAX_BATCH_TOKENS",
    "EMBEDDING_MAX_INPUT_TOKENS",
    "EMBEDDING_MAX_QUEUED_TOKENS",
    "EMBEDDING_MAX_WAIT_MILLISECONDS",
    "EMBEDDING_MODEL",
    "EMBEDDING_MODEL_ALIASES",
    "EMBEDDING_PASSAGE_PROMPT",
    "EMBEDDING_POOLING",
    "EMBEDDING_PORT",
    "EMBEDDING_PRECISION",
    "EMBEDDING_QUERY_PROMPT",
    "EMBEDDING_REQUEST_TIMEOUT_SECONDS",
    "EMBEDDING_REVISION",
    "EMBEDDING_SERVED_MODEL_NAME",
    "EMBEDDING_TLS_CERT_FILE",
    "EMBEDDING_TLS_KEY_FILE",
    "HF_TOKEN",
)
"""Variables of the bundled runtime that spec fields stand for; `spec.runtime.env` must not name them."""

NIM_VARIABLES: Final = (
    "NGC_API_KEY",
    "NIM_CACHE_PATH",
    "NIM_GRPC_API_PORT",
    "NIM_HTTP_API_PORT",
    "NIM_JSONL_LOGGING",
    "NIM_LOG_LEVEL",
    "NIM_MODEL_PROFILE",
    "NIM_SERVED_MODEL_NAME",
    "NIM_SERVER_SERVED_MODEL_NAME",
    "NIM_SERVER_PORT",
    "NIM_TLS_CERT_PATH",
    "NIM_TLS_KEY_PATH",
    "NIM_TRITON_GRPC_PORT",
    "NIM_TRITON_METRICS_PORT",
)
"""Variables of NVIDIA's image that spec fields stand for. NIM_JSONL_LOGGING and NIM_LOG_LEVEL may be overridden."""
