"""What every child has in common: name, labels, owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.api import EmbeddingService
from embedding_operator.api.constants import (
    API_VERSION,
    INSTANCE_LABEL,
    KIND,
    MANAGED_BY_LABEL,
    MANAGER,
    NAME_LABEL,
    SERVICE_LABEL,
)
from embedding_operator.api.kinds import Resource

from .context import Child
from .inventory import child_name


def selector(service: EmbeddingService) -> dict[str, str]:
    """Labels that select the service's Pods, and nothing else: a selector can never be changed."""
    return {SERVICE_LABEL: service.name}


def labels(service: EmbeddingService, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Labels of a child; those of the operator win over `extra`. They never depend on a version."""
    return {
        **(extra or {}),
        MANAGED_BY_LABEL: MANAGER,
        NAME_LABEL: "embedding-service",
        INSTANCE_LABEL: service.name,
        **selector(service),
    }


def child(
    service: EmbeddingService,
    kind: Resource,
    *,
    extra_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **content: Any,
) -> Child:
    """A child of `kind` with metadata that names its owner, and `content` (spec, data) beside it.

    The owner reference does not block the owner's deletion: some clusters let only those set that who may also change
    the owner's finalizers, a right this operator does not need. The reference is left out for a service that is not in
    a cluster (no uid), as when rendering a file.
    """
    metadata: dict[str, Any] = {
        "name": child_name(service.name, kind),
        "namespace": service.namespace,
        "labels": labels(service, extra_labels),
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    if service.metadata.uid:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": service.name,
                "uid": service.metadata.uid,
                "controller": True,
            }
        ]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}
