"""The HorizontalPodAutoscaler."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from embedding_operator.api import Autoscaling, EmbeddingService
from embedding_operator.api.constants import UTILIZATION_METRIC
from embedding_operator.api.kinds import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS
from embedding_operator.api.quantity import canonical

from .borrowed import AUTOSCALING, normalised
from .context import Child
from .inventory import child_name
from .metadata import child

DEFAULT_BEHAVIOR: Final[dict[str, Any]] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    },
}
"""Up at once, because a queue only grows; down slowly, because a Pod that comes back loads its model again."""


def horizontal_pod_autoscaler(service: EmbeddingService, autoscaling: Autoscaling) -> Child:
    """The autoscaler of the Deployment."""
    metrics = [normalised(metric, AUTOSCALING + "MetricSpec") for metric in autoscaling.metrics]
    behavior = autoscaling.behavior
    return child(
        service,
        HORIZONTAL_POD_AUTOSCALERS,
        spec={
            "scaleTargetRef": {
                "apiVersion": DEPLOYMENTS.api_version,
                "kind": DEPLOYMENTS.kind,
                "name": child_name(service.name, DEPLOYMENTS),
            },
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": metrics or [_utilization(autoscaling.target_utilization_percent)],
            "behavior": normalised(behavior, AUTOSCALING + "HorizontalPodAutoscalerBehavior") or DEFAULT_BEHAVIOR,
        },
    )


def _utilization(percent: int) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": canonical(str(float(Fraction(percent, 100))))}
    return {"type": "Pods", "pods": {"metric": {"name": UTILIZATION_METRIC}, "target": target}}
