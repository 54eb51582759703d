"""Types borrowed from Kubernetes: opaque JSON here, the API server's own schema in the CRD.

Each type names a definition of `kubernetes_schemas.json`, which `python -m tools.generate --refresh-kubernetes-schemas`
extracts from a running API server.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from .base import Schema

REFERENCE: Final = "x-kubernetes-definition"
"""Keyword that stands for a borrowed definition until the CRD is built; it never reaches the API server."""

Json = dict[str, Any]

_CORE = "io.k8s.api.core.v1."
_AUTOSCALING = "io.k8s.api.autoscaling.v2."
_NETWORKING = "io.k8s.api.networking.v1."


def _borrow(definition: str) -> Schema:
    return Schema({REFERENCE: definition})


Affinity = Annotated[Json, _borrow(_CORE + "Affinity")]
Container = Annotated[Json, _borrow(_CORE + "Container")]
EnvFromSource = Annotated[Json, _borrow(_CORE + "EnvFromSource")]
EnvVar = Annotated[Json, _borrow(_CORE + "EnvVar")]
HorizontalPodAutoscalerBehavior = Annotated[Json, _borrow(_AUTOSCALING + "HorizontalPodAutoscalerBehavior")]
MetricSpec = Annotated[Json, _borrow(_AUTOSCALING + "MetricSpec")]
NetworkPolicyPeer = Annotated[Json, _borrow(_NETWORKING + "NetworkPolicyPeer")]
Toleration = Annotated[Json, _borrow(_CORE + "Toleration")]
TopologySpreadConstraint = Annotated[Json, _borrow(_CORE + "TopologySpreadConstraint")]
Volume = Annotated[Json, _borrow(_CORE + "Volume")]
VolumeMount = Annotated[Json, _borrow(_CORE + "VolumeMount")]

DEFINITIONS: Final = (
    _CORE + "Affinity",
    _CORE + "Container",
    _CORE + "EnvFromSource",
    _CORE + "EnvVar",
    _AUTOSCALING + "HorizontalPodAutoscalerBehavior",
    _AUTOSCALING + "MetricSpec",
    _NETWORKING + "NetworkPolicyPeer",
    _CORE + "Toleration",
    _CORE + "TopologySpreadConstraint",
    _CORE + "Volume",
    _CORE + "VolumeMount",
)
"""Every definition the models borrow; what they refer to is vendored with them."""
