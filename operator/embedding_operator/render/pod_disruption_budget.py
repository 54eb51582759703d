"""The PodDisruptionBudget."""

from __future__ import annotations

from embedding_operator.api import EmbeddingService
from embedding_operator.api.kinds import POD_DISRUPTION_BUDGETS

from .context import Child
from .metadata import child, selector


def pod_disruption_budget(service: EmbeddingService) -> Child:
    """The budget; a Pod that is not ready may always be evicted, so that a broken rollout never blocks a drain."""
    return child(
        service,
        POD_DISRUPTION_BUDGETS,
        spec={
            "selector": {"matchLabels": selector(service)},
            "maxUnavailable": service.spec.disruption_budget.max_unavailable,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
