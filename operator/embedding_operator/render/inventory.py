"""Every object a service may own, so that those no longer asked for can be found and deleted."""

from __future__ import annotations

from typing import Final, NamedTuple

from embedding_operator.api import EmbeddingService


class ChildKind(NamedTuple):
    """A kind of child. `optional_api` kinds belong to software that may not be installed."""

    api_version: str
    kind: str
    plural: str
    optional_api: bool = False


class ChildReference(NamedTuple):
    """One object by kind and name, in the namespace of its service."""

    api_version: str
    kind: str
    plural: str
    name: str
    optional_api: bool


DEPLOYMENT: Final = ChildKind("apps/v1", "Deployment", "deployments")
SERVICE: Final = ChildKind("v1", "Service", "services")
HORIZONTAL_POD_AUTOSCALER: Final = ChildKind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
POD_DISRUPTION_BUDGET: Final = ChildKind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = ChildKind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICE_MONITOR: Final = ChildKind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", True)
PROMETHEUS_RULE: Final = ChildKind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", True)
DASHBOARD: Final = ChildKind("v1", "ConfigMap", "configmaps")

CHILD_KINDS: Final = (
    NETWORK_POLICY,
    SERVICE,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    POD_DISRUPTION_BUDGET,
    SERVICE_MONITOR,
    PROMETHEUS_RULE,
    DASHBOARD,
)
"""In the order in which children are applied."""


def child_name(service_name: str, kind: ChildKind) -> str:
    """The child's name: the service's own, but for the ConfigMap, whose kind says too little."""
    return f"{service_name}-dashboard" if kind is DASHBOARD else service_name


def inventory(service: EmbeddingService) -> tuple[ChildReference, ...]:
    """Every object the service may own, whether it asks for it now or not."""
    return tuple(
        ChildReference(kind.api_version, kind.kind, kind.plural, child_name(service.name, kind), kind.optional_api)
        for kind in CHILD_KINDS
    )
