"""Kinds of objects and where the API server serves them: one table for rendering, reading, watching and applying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedding_operator.api.constants import API_VERSION, KIND, PLURAL


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object."""

    api_version: str
    kind: str
    plural: str
    monitoring: bool = False
    """A child only where the operator may manage monitoring (`monitoring.enabled` of the chart)."""

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of the collection, of one object, or of a subresource of it."""
        prefix = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [prefix]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


EMBEDDING_SERVICES: Final = Resource(API_VERSION, KIND, PLURAL)

DEPLOYMENTS: Final = Resource("apps/v1", "Deployment", "deployments")
SERVICES: Final = Resource("v1", "Service", "services")
HORIZONTAL_POD_AUTOSCALERS: Final = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
POD_DISRUPTION_BUDGETS: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES: Final = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICE_MONITORS: Final = Resource("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", monitoring=True)
PROMETHEUS_RULES: Final = Resource("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", monitoring=True)
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps", monitoring=True)

PODS: Final = Resource("v1", "Pod", "pods")
CORE_EVENTS: Final = Resource("v1", "Event", "events")
EVENTS: Final = Resource("events.k8s.io/v1", "Event", "events")
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")

CHILD_KINDS: Final = (
    NETWORK_POLICIES,
    SERVICES,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    POD_DISRUPTION_BUDGETS,
    SERVICE_MONITORS,
    PROMETHEUS_RULES,
    CONFIG_MAPS,
)
"""Every kind of child an EmbeddingService may have, in the order in which children are applied."""

BY_KIND: Final[Mapping[tuple[str, str], Resource]] = {
    (resource.api_version, resource.kind): resource for resource in CHILD_KINDS
}


def child_kinds(*, monitoring: bool) -> tuple[Resource, ...]:
    """The kinds of children an operator with or without the rights on monitoring looks at."""
    return tuple(resource for resource in CHILD_KINDS if monitoring or not resource.monitoring)
