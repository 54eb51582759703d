"""`spec.autoscaling`: the HorizontalPodAutoscaler of the service."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .borrowed import HorizontalPodAutoscalerBehavior, MetricSpec


class Autoscaling(ApiModel):
    """Scale between minReplicas and maxReplicas."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas must not be larger than maxReplicas",
            holds=lambda it: it.min_replicas <= it.max_replicas,
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=10000)] = 1
    """Fewest Pods."""

    max_replicas: Annotated[int, Field(ge=1, le=10000)] = 4
    """Most Pods."""

    target_utilization_percent: Annotated[int, Field(ge=1, le=1000)] = 70
    """Utilization that the autoscaler aims for: the runtime's own demand over its measured capacity, where 100 is
    saturated. Ignored when metrics is set."""

    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=16), Schema({"x-kubernetes-list-type": "atomic"})] = ()
    """Metrics of autoscaling/v2, used in place of targetUtilizationPercent."""

    behavior: HorizontalPodAutoscalerBehavior | None = None
    """Speed of scaling. Default: up at once, down by one Pod a minute after five quiet minutes."""
