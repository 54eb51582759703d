"""The Deployment."""

from __future__ import annotations

from typing import Any

from embedding_operator.api import EmbeddingService
from embedding_operator.api.kinds import DEPLOYMENTS

from .context import Child, RenderContext, Strategy
from .metadata import child, selector
from .pod import pod_template
from .probes import progress_deadline_seconds


def deployment(service: EmbeddingService, context: RenderContext) -> Child:
    """The Deployment; `replicas` only when the context says that the operator owns it."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector(service)},
        "strategy": _strategy(context.strategy),
        "progressDeadlineSeconds": progress_deadline_seconds(service),
        "template": pod_template(service, context),
    }
    if context.replicas is not None:
        spec["replicas"] = context.replicas
    return child(service, DEPLOYMENTS, spec=spec)


def _strategy(strategy: Strategy) -> dict[str, Any]:
    """The whole object, always: a field left to defaults would make a later switch to Recreate fail."""
    match strategy:
        case Strategy.SURGE:
            return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        case Strategy.MAX_UNAVAILABLE:
            return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
        case Strategy.RECREATE:
            return {"type": "Recreate"}
