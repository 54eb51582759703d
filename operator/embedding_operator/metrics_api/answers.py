"""The documents of `custom.metrics.k8s.io/v1beta2`, and the requests they answer. Pure.

Shapes: `k8s.io/metrics/pkg/apis/custom_metrics/v1beta2` and `k8s.io/apimachinery/pkg/apis/meta/v1`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from embedding_operator.api.constants import UTILIZATION_METRIC

Document = dict[str, Any]

GROUP_VERSION: Final = "custom.metrics.k8s.io/v1beta2"
WINDOW_SECONDS: Final = 10
"""Over how long the runtime measures its utilization."""
_ROOT: Final = ["apis", *GROUP_VERSION.split("/")]


class Refusal(Exception):
    """A request that is answered with a Status. `reason` is the API's own word for the HTTP status `code`."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


def not_found(message: str) -> Refusal:
    return Refusal(404, "NotFound", message)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one Pod's runtime said: its demand over its capacity, 1.0 being saturated, and when it was asked."""

    utilization: float
    at: datetime


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """The utilization of one Pod, or with `pod` None of all that the request's selector matches."""

    namespace: str
    pod: str | None


def parse_path(raw_path: str) -> MetricRequest | None:
    """What a still percent-encoded path asks for; None is discovery. Raises Refusal (404) for anything else."""
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    if parts[:3] != _ROOT:
        raise not_found(f"only /{'/'.join(_ROOT)} is served here")
    match parts[3:]:
        case []:
            return None
        case ["namespaces", namespace, "pods", pod, metric] if namespace and pod:
            if metric != UTILIZATION_METRIC:
                raise not_found(f"there is no metric {metric!r} of Pods; {UTILIZATION_METRIC} is the only one")
            return MetricRequest(namespace, None if pod == "*" else pod)
    raise not_found(f"only namespaces/NAMESPACE/pods/*/{UTILIZATION_METRIC} and one Pod's name for * are served")


def discovery() -> Document:
    """The APIResourceList of the group's version."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [
            {
                "name": f"pods/{UTILIZATION_METRIC}",
                "singularName": "",
                "namespaced": True,
                "kind": "MetricValueList",
                "verbs": ["get"],
            }
        ],
    }


def metric_value_list(namespace: str, figures: Iterable[tuple[str, Figure]]) -> Document:
    """A MetricValueList of figures by Pod name."""
    return {
        "kind": "MetricValueList",
        "apiVersion": GROUP_VERSION,
        "metadata": {},
        "items": [
            {
                "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "apiVersion": "v1"},
                "metric": {"name": UTILIZATION_METRIC, "selector": None},
                "timestamp": figure.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "windowSeconds": WINDOW_SECONDS,
                "value": f"{round(figure.utilization * 1000)}m",
            }
            for pod, figure in figures
        ],
    }


def status(refusal: Refusal) -> Document:
    """The Status object of a refusal."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refusal.message,
        "reason": refusal.reason,
        "code": refusal.code,
    }


def plausible(utilization: float) -> bool:
    """Whether a figure from a Pod can be passed on: a Pod may answer anything, an autoscaler must not see it."""
    return math.isfinite(utilization) and 0 <= utilization < 1e6
