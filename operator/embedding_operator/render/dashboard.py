"""The Grafana dashboard, as a ConfigMap for Grafana's dashboard sidecar."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from embedding_operator.api import EmbeddingService
from embedding_operator.api.kinds import CONFIG_MAPS

from .context import Child
from .metadata import child
from .prometheus_rule import pod_matchers

Json = dict[str, Any]

UID_LENGTH: Final = 40
"""The longest uid Grafana takes."""
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


class Panel(NamedTuple):
    """One graph. Expressions have `{pods}` where the label matchers of the service's Pods go."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


PANELS = (
    Panel(
        "Requests per second",
        "reqps",
        (("{{{{status}}}}", "sum by (status) (rate(embedding_requests_total{{{pods}}}[$__rate_interval]))"),),
    ),
    Panel(
        "Tokens per second",
        "short",
        (("{{{{input_type}}}}", "sum by (input_type) (rate(embedding_tokens_total{{{pods}}}[$__rate_interval]))"),),
    ),
    Panel("Utilization", "percentunit", (("{{{{pod}}}}", "max by (pod) (embedding_utilization{{{pods}}})"),)),
    Panel(
        "Time in the queue",
        "s",
        tuple(
            (
                f"p{percentile}",
                f"histogram_quantile(0.{percentile}, sum by (le) "
                '(rate(embedding_stage_seconds_bucket{{{pods},stage="queue"}}[$__rate_interval])))',
            )
            for percentile in (50, 95, 99)
        ),
    ),
    Panel(
        "Time per stage, mean",
        "s",
        (
            (
                "{{{{stage}}}}",
                "sum by (stage) (rate(embedding_stage_seconds_sum{{{pods}}}[$__rate_interval]))"
                " / sum by (stage) (rate(embedding_stage_seconds_count{{{pods}}}[$__rate_interval]))",
            ),
        ),
    ),
    Panel("Queued tokens", "short", (("{{{{lane}}}}", "sum by (lane) (embedding_queue_tokens{{{pods}}})"),)),
    Panel(
        "Tokens per batch, mean",
        "short",
        (
            (
                "{{{{pod}}}}",
                "sum by (pod) (rate(embedding_batch_tokens_sum{{{pods}}}[$__rate_interval]))"
                " / sum by (pod) (rate(embedding_batch_tokens_count{{{pods}}}[$__rate_interval]))",
            ),
        ),
    ),
    Panel(
        "Rejected per second",
        "reqps",
        (("{{{{reason}}}}", "sum by (reason) (rate(embedding_rejected_total{{{pods}}}[$__rate_interval]))"),),
    ),
    Panel(
        "Pods by vector space",
        "short",
        (("{{{{fingerprint}}}}", "count by (fingerprint) (embedding_model_info{{{pods}}})"),),
    ),
)


def dashboard(service: EmbeddingService) -> Child:
    """A ConfigMap with one entry, the dashboard's JSON. The data source is Grafana's default Prometheus."""
    content = json.dumps(_dashboard(service), sort_keys=True, separators=(",", ":"))
    return child(
        service,
        CONFIG_MAPS,
        extra_labels=service.spec.monitoring.dashboard.labels,
        data={f"{service.namespace}-{service.name}.json": content},
    )


def _dashboard(service: EmbeddingService) -> Json:
    return {
        "uid": (service.metadata.uid or f"{service.namespace}-{service.name}")[:UID_LENGTH],
        "title": f"Embeddings / {service.namespace} / {service.name}",
        "tags": ["embedding-operator"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(service, number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(service: EmbeddingService, number: int, panel: Panel) -> Json:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "legendFormat": legend.format(), "expr": expression.format(pods=pods)}
            for pods in (pod_matchers(service),)
            for index, (legend, expression) in enumerate(panel.queries)
        ],
    }
