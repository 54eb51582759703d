"""The operator has every right it needs and none that it does not: its requests, replayed against the chart's rules.

A cluster of its own per mode: what was asked for is exactly what this scenario makes the operator do. What all other
tests make it do, in the mode that they share, is judged when the run ends (`tests.cluster.replay`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from devcluster import Cluster, ClusterSettings, DevclusterError
from tests.cluster.conftest import CHART, RESTRICTED
from tests.cluster.replay import MONITORED, NAMESPACED, granted, judged, reader_of, record
from tests.cluster.rights import requests_of
from tests.cluster.services import CPU, OPERATOR_NAMESPACE, OPERATOR_USER, RELEASE, Services, service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]

NAMESPACE = "search"
METRICS_API = "v1beta2.custom.metrics.k8s.io"
MODES: dict[str, dict[str, Any]] = {
    MONITORED: {
        "monitoring": {"enabled": True},
        "metricsApi": {"enabled": True},
        "replicaCount": 2,
    },
    NAMESPACED: {"monitoring": {"enabled": True}, "watchNamespaces": [NAMESPACE]},
}
EVERYTHING: dict[str, Any] = {
    "autoscaling": {"minReplicas": 1, "maxReplicas": 2},
    "networkPolicy": {"enabled": True},
    "disruptionBudget": {"enabled": True},
}
MONITORING = {"monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "alerts", "dashboard")}}
NOTHING: dict[str, Any] = {"disruptionBudget": {"enabled": False}, "suspend": True}


def definition(plural: str, kind: str) -> dict[str, Any]:
    """A stand-in for the Prometheus operator's definition of a kind: any content is admitted."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def installed(mode: str) -> Iterator[Services]:
    """A release with the values of the mode, in a cluster of its own."""
    with Cluster(ClusterSettings(name=f"rights-{uuid.uuid4().hex[:6]}")) as cluster:
        for name in (OPERATOR_NAMESPACE, NAMESPACE):
            metadata = {"name": name, "labels": RESTRICTED}
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        monitors = definition("servicemonitors", "ServiceMonitor"), definition("prometheusrules", "PrometheusRule")
        cluster.apply(*monitors)
        pace = {"RESYNC_SECONDS": "5", "WATCH_SECONDS": "3", "POLL_SECONDS": "2", "PROGRESS_SECONDS": "0.5"}
        environment = [{"name": f"EMBEDDING_OPERATOR_{name}", "value": value} for name, value in pace.items()]
        cluster.helm(
            *("install", RELEASE, str(CHART), f"--namespace={OPERATOR_NAMESPACE}", "--wait", "--timeout=120s"),
            *("--values", "-"),
            input=json.dumps({**MODES[mode], "extraEnv": environment}),
        )
        yield Services(cluster, NAMESPACE)


def exercise(services: Services) -> None:
    """Everything the operator does to a service, once."""
    optional = ["hpa", "pdb", "networkpolicy", "servicemonitor", "prometheusrule"]
    children = ["deployment", "service", *optional]
    spec = {**EVERYTHING, **MONITORING, "accelerator": CPU}
    dashboard = ("configmap", "minilm-dashboard")

    def there(kinds: list[str]) -> list[str]:
        return [kind for kind in kinds if services.get(kind) is not None]

    # A Secret that is missing keeps the Pod waiting, and only Events say why.
    services.apply(service(**spec, authentication={"apiKeysSecretRef": {"name": "no-such-keys"}}))
    services.wait(f"{children} exist", lambda: there(children) == children)
    services.wait_reason("SecretNotFound", timeout=60)
    for kind in children:
        services.kubectl("label", kind, "minilm", "app.kubernetes.io/managed-by=somebody", "--overwrite")
    services.wait(
        "the labels are repaired",
        lambda: all(
            services.existing(kind)["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "embedding-operator"
            for kind in children
        ),
    )
    assert services.get(*dashboard) is not None
    services.apply(service(**NOTHING))
    services.wait(f"{optional} are gone", lambda: not there(optional) and services.get(*dashboard) is None)
    services.wait_reason("Suspended")


def test_every_right_is_used_and_none_is_missing(installed: Services, mode: str) -> None:
    exercise(installed)
    if "metricsApi" in MODES[mode]:
        installed.cluster.kubectl("wait", "--for=condition=Available", f"apiservice/{METRICS_API}", "--timeout=60s")

    def idle_rights() -> tuple[str, ...]:
        events = installed.cluster.audit_events(OPERATOR_USER)
        return judged(mode, events, granted(MODES[mode], reader_of(installed.cluster))).unused

    with suppress(DevclusterError):  # said in other words below
        installed.cluster.wait_until(lambda: not idle_rights(), "every watch has begun", timeout=20, period=1)
    found = record(installed.cluster, mode, MODES[mode])
    assert found is not None
    lacking = "\n  ".join(found.missing)
    assert not lacking, f"the chart does not grant what the operator asks for:\n  {lacking}"
    idle = "\n  ".join(found.unused)
    assert not idle, (
        "the chart grants what nothing here needs; take it out of charts/embedding-operator/templates, or have "
        f"tests/cluster/test_rights.py exercise what needs it:\n  {idle}"
    )
    asked = requests_of(installed.cluster.audit_events(OPERATOR_USER))
    assert not [request for request in asked if request.right.resource == "secrets"]
