"""What is served, by the Pods' own manifests: the model's identity, and whether all Pods agree on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from embedding_operator.observe.pods import runtime_container
from embedding_operator.observe.snapshot import Object, PodState, Reading

_FIELDS = {
    "id": "id",
    "revision": "revision",
    "fingerprint": "fingerprint",
    "dimensions": "dimensions",
    "supportedDimensions": "supported_dimensions",
    "maxInputTokens": "max_input_tokens",
    "pooling": "pooling",
    "modalities": "modalities",
    "precision": "precision",
}
"""`status.model` field -> manifest field."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The served model as the ready Pods describe it."""

    model: Mapping[str, Any]
    """For `status.model`: only the fields on which all Pods agree."""
    runtime: Mapping[str, Any]
    """For `status.runtime`, likewise."""
    fingerprints: Mapping[str, tuple[str, ...]]
    """Fingerprint -> names of the ready Pods that serve it."""
    published: int
    """How many ready Pods gave a manifest."""
    silent: int
    """How many ready Pods answered, but publish no manifest (NVIDIA's images)."""
    unreachable: Mapping[str, str]
    """Ready Pods that could not be asked, with the error."""

    @property
    def agreed(self) -> bool:
        return len(self.fingerprints) <= 1


def _agreed(values: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that are the same everywhere and not empty."""
    entries = list(values)
    if not entries:
        return {}
    first = entries[0]
    return {
        key: value
        for key, value in first.items()
        if value is not None and all(other.get(key) == value for other in entries[1:])
    }


def _model(manifest: Object) -> dict[str, Any]:
    model = manifest.get("model") or {}
    return {field: model.get(source) for field, source in _FIELDS.items()}


def _runtime(pod: PodState, manifest: Object | None) -> dict[str, Any]:
    container = runtime_container(pod)
    version = ((manifest or {}).get("runtime") or {}).get("version")
    return {
        "version": version,
        "image": container.image if container and container.image else None,
        "imageID": container.image_id if container and container.image_id else None,
    }


def serving(pods: Iterable[PodState]) -> tuple[PodState, ...]:
    """The Pods that receive traffic: ready and not on their way out."""
    return tuple(pod for pod in pods if pod.ready and not pod.terminating)


def identity_of(pods: Iterable[PodState], readings: Mapping[str, Reading]) -> Identity:
    """The identity that the serving Pods publish together."""
    ready = serving(pods)
    manifests: dict[str, Object] = {}
    unreachable: dict[str, str] = {}
    silent = 0
    for pod in ready:
        reading = readings.get(pod.name)
        if reading is None:
            unreachable[pod.name] = "it has not answered yet"
        elif reading.error is not None or not reading.ready:
            unreachable[pod.name] = reading.error or f"it says it is not ready: {reading.message}"
        elif reading.manifest is None:
            silent += 1
        else:
            manifests[pod.name] = reading.manifest
    fingerprints: dict[str, tuple[str, ...]] = {}
    for name, manifest in manifests.items():
        fingerprint = str((manifest.get("model") or {}).get("fingerprint") or "")
        fingerprints[fingerprint] = (*fingerprints.get(fingerprint, ()), name)
    return Identity(
        model=_agreed(_model(manifest) for manifest in manifests.values()),
        runtime=_agreed(_runtime(pod, manifests.get(pod.name)) for pod in ready),
        fingerprints=fingerprints,
        published=len(manifests),
        silent=silent,
        unreachable=unreachable,
    )
