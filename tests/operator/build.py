"""Builders of observed state for the tests of the pure parts: objects as an API server and a kubelet report them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from embedding_operator.observe.snapshot import ContainerState, PodState, Reading, RuntimeMetrics, Snapshot

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


def resource(spec: Mapping[str, Any] | None = None, *, generation: int = 1, **status: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": "minilm", "namespace": "search", "uid": UID, "generation": generation},
        "spec": spec if spec is not None else {"model": {"persistentVolumeClaim": {"claimName": "models"}}},
    }
    if status:
        result["status"] = status
    return result


def owned(body: Mapping[str, Any], uid: str = UID) -> dict[str, Any]:
    """A live object with our controller reference."""
    reference = {"apiVersion": "x", "kind": "EmbeddingService", "name": "minilm", "uid": uid, "controller": True}
    result = dict(body)
    result["metadata"] = {"uid": "u", "resourceVersion": "1", **body["metadata"], "ownerReferences": [reference]}
    return result


def deployment(
    *,
    replicas: int = 1,
    generation: int = 1,
    observed: int = 1,
    total: int | None = None,
    updated: int | None = None,
    ready: int | None = None,
    revision: int = 1,
    progressing_reason: str = "NewReplicaSetAvailable",
    annotations: Mapping[str, str] | None = None,
    strategy: Mapping[str, Any] | None = None,
    managers: Mapping[str, bool] | None = None,
    uid: str = UID,
) -> dict[str, Any]:
    """A live Deployment. `managers` maps field manager -> whether it owns spec.replicas by an Apply."""
    total = replicas if total is None else total
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return owned(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "minilm",
                "namespace": "search",
                "generation": generation,
                "annotations": {"deployment.kubernetes.io/revision": str(revision), **(annotations or {})},
                "managedFields": [
                    {
                        "manager": name,
                        "operation": "Apply",
                        "fieldsV1": {
                            "f:metadata": {"f:annotations": {f"f:{key}": {} for key in annotations or {}}},
                            "f:spec": {"f:replicas": {}} if owns else {"f:template": {}},
                        },
                    }
                    for name, owns in (managers or {}).items()
                ],
            },
            "spec": {"replicas": replicas, "strategy": strategy or surge},
            "status": {
                "observedGeneration": observed,
                "replicas": total,
                "updatedReplicas": total if updated is None else updated,
                "readyReplicas": total if ready is None else ready,
                "conditions": [{"type": "Progressing", "status": "True", "reason": progressing_reason, "message": "m"}],
            },
        },
        uid,
    )


RUNNING = ContainerState(
    name="runtime",
    init=False,
    ready=True,
    started=True,
    restarts=0,
    image="embedding-runtime:1",
    image_id="sha256:abc",
    running_since=NOW - timedelta(minutes=5),
)

POD = PodState(
    name="minilm-1-a",
    uid="pod-a",
    ip="10.0.0.1",
    phase="Running",
    created=NOW - timedelta(minutes=6),
    template_hash="1",
    replica_set="minilm-1",
    ready=True,
    terminating=False,
    scheduled=True,
    node="node-1",
    containers=(RUNNING,),
)


def pod(name: str = "minilm-1-a", **changes: Any) -> PodState:
    """A ready Pod with changes; `container` changes its runtime container. One that is not ready is still starting."""
    starting = {} if changes.get("ready", True) else {"ready": False, "started": False}
    container = {**starting, **changes.pop("container", {})}
    if container:
        changes.setdefault("containers", (replace(RUNNING, **container),))
    template = changes.get("template_hash", POD.template_hash)
    return replace(POD, name=name, uid=name, **{"replica_set": f"minilm-{template}", **changes})


def manifest(fingerprint: str = "sha256:one", **model: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "model": {
            "id": "all-MiniLM-L6-v2",
            "revision": "abc",
            "fingerprint": fingerprint,
            "dimensions": 384,
            "supported_dimensions": [384],
            "max_input_tokens": 256,
            "pooling": "Mean",
            "modalities": ["text"],
            "precision": "float32",
            **model,
        },
        "runtime": {"name": "embedding-runtime", "version": "0.1.0"},
    }


def metrics(utilization: float = 0.0, tokens: float = 0.0, queued: float = 0.0, at: datetime = NOW) -> RuntimeMetrics:
    return RuntimeMetrics(utilization, tokens, queued, at)


def answering(fingerprint: str = "sha256:one", figures: RuntimeMetrics | None = None) -> Reading:
    return Reading(ready=True, message="ready", manifest=manifest(fingerprint), metrics=figures or metrics())


def snapshot(
    *pods: PodState,
    readings: Mapping[str, Reading] | None = None,
    live: Mapping[str, Any] | None = None,
    autoscaler: Mapping[str, Any] | None = None,
    of: Mapping[str, Any] | None = None,
) -> Snapshot:
    children: dict[tuple[str, str, str], Any] = {}
    if live is not None:
        children["apps/v1", "Deployment", "minilm"] = live
    if autoscaler is not None:
        children["autoscaling/v2", "HorizontalPodAutoscaler", "minilm"] = autoscaler
    return Snapshot(
        resource=of or resource(), now=NOW, children=children, pods=tuple(pods), readings=dict(readings or {})
    )
