"""Arguments and environment variables of the runtime container."""

from __future__ import annotations

from typing import Any

from embedding_operator.api import AcceleratorType, EmbeddingService, Precision
from embedding_operator.api.constants import RUNTIME_PORT
from embedding_operator.api.model import HuggingFaceSource, ModelSpec
from embedding_operator.api.runtime import OWNED_VARIABLES, NimRuntime

from . import volumes
from .borrowed import CORE, normalised

Variable = dict[str, Any]


def arguments(service: EmbeddingService) -> list[str]:
    """Command line of the bundled runtime. NVIDIA's images take none."""
    model = service.spec.model
    if service.spec.is_nim or model is None:
        return []
    source = model.hugging_face
    arguments = ["serve", "--model", _location(model)]
    if source is not None and source.revision is not None:
        arguments += ["--revision", source.revision]
    return [*arguments, "--served-model-name", service.served_model_id]


def environment(service: EmbeddingService) -> list[Variable]:
    """Variables of the runtime container: those of spec fields, then the user's own.

    Only what the spec sets is rendered. The rest is the image's own default, so that a newer operator with other
    defaults in mind changes no Pod.
    """
    rendered = _nim(service, nim) if (nim := service.spec.runtime.nim) is not None else _bundled(service)
    extra = [normalised(variable, CORE + "EnvVar") for variable in service.spec.runtime.env]
    replaced = {variable["name"] for variable in extra if variable["name"] not in OWNED_VARIABLES}
    return [
        *(variable for variable in rendered if variable["name"] not in replaced),
        *(variable for variable in extra if variable["name"] in replaced),
    ]


def _location(model: ModelSpec) -> str:
    if model.hugging_face is not None:
        return model.hugging_face.repository
    source = model.persistent_volume_claim or model.image
    path = source.path if source is not None else None
    return f"{volumes.MODEL_PATH}/{path}" if path else volumes.MODEL_PATH


def _bundled(service: EmbeddingService) -> list[Variable]:
    spec = service.spec
    runtime, model = spec.runtime, spec.model or ModelSpec()
    prompts = model.prompts
    values: dict[str, str | int | None] = {
        "EMBEDDING_PORT": RUNTIME_PORT,
        "EMBEDDING_CACHE_DIR": volumes.CACHE_PATH,
        "EMBEDDING_DEVICE": "Cpu" if spec.accelerator.type is AcceleratorType.NONE else "Cuda",
        "EMBEDDING_DRAIN_TIMEOUT_SECONDS": runtime.drain_timeout_seconds,
        "EMBEDDING_MODEL_ALIASES": ",".join(model.aliases) or None,
        "EMBEDDING_MAX_INPUT_TOKENS": model.max_input_tokens,
        "EMBEDDING_POOLING": model.pooling,
        "EMBEDDING_QUERY_PROMPT": None if prompts is None else prompts.query,
        "EMBEDDING_PASSAGE_PROMPT": None if prompts is None else prompts.passage,
        "EMBEDDING_EXPECTED_FINGERPRINT": spec.vector_space.expected_fingerprint,
        "EMBEDDING_API_KEYS_DIR": volumes.API_KEYS_PATH if spec.authentication else None,
        "EMBEDDING_TLS_CERT_FILE": f"{volumes.TLS_PATH}/tls.crt" if runtime.tls else None,
        "EMBEDDING_TLS_KEY_FILE": f"{volumes.TLS_PATH}/tls.key" if runtime.tls else None,
    }
    if (bundled := runtime.bundled) is not None:
        values |= {
            "EMBEDDING_PRECISION": None if bundled.precision is Precision.AUTO else bundled.precision,
            "EMBEDDING_MAX_WAIT_MILLISECONDS": bundled.batching.max_wait_milliseconds,
            "EMBEDDING_MAX_BATCH_TOKENS": bundled.batching.max_batch_tokens,
            "EMBEDDING_MAX_BATCH_ITEMS": bundled.batching.max_batch_items,
            "EMBEDDING_MAX_QUEUED_TOKENS": bundled.batching.max_queued_tokens,
            "EMBEDDING_REQUEST_TIMEOUT_SECONDS": bundled.request_timeout_seconds,
        }
    return [*_plain(values), *_hub_token(model.hugging_face)]


def _hub_token(source: HuggingFaceSource | None) -> list[Variable]:
    if source is None or source.token_secret_ref is None:
        return []
    return [_from_secret("HF_TOKEN", source.token_secret_ref.name, source.token_secret_ref.key)]


def _nim(service: EmbeddingService, nim: NimRuntime) -> list[Variable]:
    """What NVIDIA's own operator gives its images, and names for the model in the spelling of NIM 1.x and of 2.2."""
    model, tls = service.spec.model, service.spec.runtime.tls
    names = None
    if model is not None and (model.id is not None or model.aliases):
        names = ",".join((service.served_model_id, *model.aliases))
    values: dict[str, str | int | None] = {
        "NIM_CACHE_PATH": volumes.NIM_CACHE_PATH,
        "NIM_SERVER_PORT": RUNTIME_PORT,
        "NIM_HTTP_API_PORT": RUNTIME_PORT,
        "NIM_GRPC_API_PORT": nim.grpc_port,
        "NIM_TRITON_GRPC_PORT": nim.grpc_port,
        "NIM_TRITON_METRICS_PORT": nim.metrics_port,
        "NIM_JSONL_LOGGING": 1,
        "NIM_LOG_LEVEL": "INFO",
        "NIM_MODEL_PROFILE": nim.profile,
        "NIM_SERVED_MODEL_NAME": names,
        "NIM_SERVER_SERVED_MODEL_NAME": names,
        "NIM_TLS_CERT_PATH": f"{volumes.TLS_PATH}/tls.crt" if tls else None,
        "NIM_TLS_KEY_PATH": f"{volumes.TLS_PATH}/tls.key" if tls else None,
    }
    key = nim.ngc_secret_ref
    return [*_plain(values), *([_from_secret("NGC_API_KEY", key.name, "NGC_API_KEY")] if key else [])]


def _plain(values: dict[str, str | int | None]) -> list[Variable]:
    """Variables by name. An empty value is stored as none at all; either way the variable is set, and empty."""
    set_ = [{"name": name, "value": str(value)} for name, value in values.items() if value is not None]
    return [normalised(variable, CORE + "EnvVar") for variable in set_]


def _from_secret(variable: str, name: str, key: str) -> Variable:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
