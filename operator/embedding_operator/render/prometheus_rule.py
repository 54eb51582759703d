"""The PrometheusRule: alerts on what users of the service would notice, each saying what to do."""

from __future__ import annotations

from typing import Any, NamedTuple

from embedding_operator.api import EmbeddingService
from embedding_operator.api.kinds import PROMETHEUS_RULES

from .context import Child
from .metadata import child

Json = dict[str, Any]


class Alert(NamedTuple):
    """One alert. `expression` has `{pods}` where the label matchers of the service's Pods go."""

    name: str
    severity: str
    minutes: int
    expression: str
    summary: str
    description: str


ALERTS = (
    Alert(
        "EmbeddingServiceAbsent",
        "critical",
        5,
        "absent(embedding_model_info{{{pods}}})",
        "No Pod of {name} has a model loaded.",
        "Every request fails. Look at the conditions and problems of the EmbeddingService: kubectl -n {namespace} "
        "get embeddingservice {name} -o yaml.",
    ),
    Alert(
        "EmbeddingServiceErrors",
        "critical",
        5,
        'sum(rate(embedding_requests_total{{{pods},status=~"5.."}}[5m]))'
        " / sum(rate(embedding_requests_total{{{pods}}}[5m])) > 0.05",
        "More than one request in twenty to {name} fails.",
        "Read the runtime's log for the request ids of failed requests: kubectl -n {namespace} logs "
        "-l embedding-operator.io/service={name} -c runtime.",
    ),
    Alert(
        "EmbeddingServiceVectorSpacesDiffer",
        "critical",
        30,
        "count(count by (fingerprint) (embedding_model_info{{{pods}}})) > 1",
        "Pods of {name} serve different vector spaces.",
        "Vectors of one index must come from one space. Finish or undo the rollout, pin model.huggingFace.revision, "
        "and set vectorSpace.expectedFingerprint.",
    ),
    Alert(
        "EmbeddingServiceRejecting",
        "warning",
        10,
        'sum(rate(embedding_requests_total{{{pods},status="429"}}[5m]))'
        " / sum(rate(embedding_requests_total{{{pods}}}[5m])) > 0.01",
        "{name} turns requests away.",
        "Its queue or a client's rate limit is full. Raise autoscaling.maxReplicas or replicas, or the client's limit.",
    ),
    Alert(
        "EmbeddingServiceSaturated",
        "warning",
        15,
        "avg(embedding_utilization{{{pods}}}) > 1",
        "More is asked of {name} than it can embed.",
        "Queues grow. Raise autoscaling.maxReplicas or replicas; the value is how many times too small the service is.",
    ),
    Alert(
        "EmbeddingServiceQueueSlow",
        "warning",
        10,
        'histogram_quantile(0.95, sum by (le) (rate(embedding_stage_seconds_bucket{{{pods},stage="queue"}}[5m]))) > 5',
        "Requests to {name} wait more than five seconds for the device.",
        "Raise autoscaling.maxReplicas or replicas, or lower autoscaling.targetUtilizationPercent.",
    ),
)


def prometheus_rule(service: EmbeddingService) -> Child:
    """One group of alerts. They rely on the labels `namespace` and `service`, which a ServiceMonitor's targets have."""
    return child(
        service,
        PROMETHEUS_RULES,
        extra_labels=service.spec.monitoring.alerts.labels,
        spec={"groups": [{"name": service.name, "rules": [_rule(service, alert) for alert in ALERTS]}]},
    )


def pod_matchers(service: EmbeddingService) -> str:
    """PromQL label matchers of the service's Pods."""
    return f'namespace="{service.namespace}",service="{service.name}"'


def _rule(service: EmbeddingService, alert: Alert) -> Json:
    words = {"name": service.name, "namespace": service.namespace}
    return {
        "alert": alert.name,
        "expr": alert.expression.format(pods=pod_matchers(service)),
        "for": f"{alert.minutes}m",
        "labels": {"severity": alert.severity, "namespace": service.namespace, "service": service.name},
        "annotations": {"summary": alert.summary.format(**words), "description": alert.description.format(**words)},
    }
