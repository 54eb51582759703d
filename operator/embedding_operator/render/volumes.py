"""Volumes of the Pod and where the runtime container mounts them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from embedding_operator.api import AcceleratorType, EmbeddingService
from embedding_operator.api.model import ModelSpec

MODEL_PATH: Final = "/model"
CACHE_PATH: Final = "/cache"
NIM_CACHE_PATH: Final = "/model-store"
API_KEYS_PATH: Final = "/etc/embedding/api-keys"
TLS_PATH: Final = "/etc/embedding/tls"
TEMPORARY_PATH: Final = "/tmp"  # noqa: S108 - a mount path in the container
SHARED_MEMORY_PATH: Final = "/dev/shm"  # noqa: S108 - a mount path in the container


class Mounted(NamedTuple):
    """A volume together with its mount in the runtime container."""

    name: str
    source: dict[str, Any]
    path: str
    read_only: bool = False

    def volume(self) -> dict[str, Any]:
        """The Pod's side."""
        return {"name": self.name, **self.source}

    def mount(self) -> dict[str, Any]:
        """The container's side."""
        mount: dict[str, Any] = {"name": self.name, "mountPath": self.path}
        return {**mount, "readOnly": True} if self.read_only else mount


def mounted(service: EmbeddingService) -> list[Mounted]:
    """Every volume the operator renders."""
    spec = service.spec
    model = spec.model or ModelSpec()
    found = [
        Mounted("tmp", {"emptyDir": {}}, TEMPORARY_PATH),
        Mounted("cache", _cache(model), NIM_CACHE_PATH if spec.is_nim else CACHE_PATH),
    ]
    if (source := _model(model)) is not None:
        found.append(Mounted("model", source, MODEL_PATH, read_only=True))
    if spec.accelerator.type is not AcceleratorType.NONE:
        found.append(Mounted("shm", _shared_memory(service), SHARED_MEMORY_PATH))
    if spec.authentication is not None:
        keys = {"secret": {"secretName": spec.authentication.api_keys_secret_ref.name}}
        found.append(Mounted("api-keys", keys, API_KEYS_PATH, read_only=True))
    if spec.runtime.tls is not None:
        found.append(Mounted("tls", {"secret": {"secretName": spec.runtime.tls.secret_name}}, TLS_PATH, read_only=True))
    return found


def _model(model: ModelSpec) -> dict[str, Any] | None:
    if (claim := model.persistent_volume_claim) is not None:
        return {"persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True}}
    if (image := model.image) is not None:
        policy = {} if image.pull_policy is None else {"pullPolicy": image.pull_policy.value}
        return {"image": {"reference": image.reference, **policy}}
    return None


def _cache(model: ModelSpec) -> dict[str, Any]:
    cache = model.cache
    if cache is not None and (claim := cache.persistent_volume_claim) is not None:
        return {"persistentVolumeClaim": {"claimName": claim.claim_name}}
    if cache is not None and cache.empty_dir is not None and cache.empty_dir.size_limit is not None:
        return {"emptyDir": {"sizeLimit": cache.empty_dir.size_limit}}
    return {"emptyDir": {}}


def _shared_memory(service: EmbeddingService) -> dict[str, Any]:
    nim = service.spec.runtime.nim
    limit = None if nim is None else nim.shared_memory_size_limit
    return {"emptyDir": {"medium": "Memory", **({} if limit is None else {"sizeLimit": limit})}}
