"""Every field that the operator renders, of every kind of child, changed by hand: it comes back.

The fields are those that the API server itself records as the operator's. These tests own their cluster, in which the
operator may manage monitoring as well; its services run no Pods.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.observe.managed_fields import applied_fields
from embedding_operator.render.inventory import CHILD_KINDS, child_name
from kubernetes import config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

from devcluster import Cluster, ClusterSettings
from tests.cluster.conftest import CHART
from tests.cluster.mutations import Mutation, owned_fields, show, value_at
from tests.cluster.replicas import Replica
from tests.cluster.services import OPERATOR_NAMESPACE, RELEASE, Services, service
from tests.cluster_fixture import MINILM

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

COPIES = 4
"""The Deployment's fields are spread over as many services, worked on side by side."""
REPAIR_SECONDS = 20.0
SECURITY = {"runAsUser": 1000}
EVERYTHING: dict[str, Any] = {
    "suspend": True,
    "model": {
        "huggingFace": {"repository": MINILM, "revision": "c" * 40, "tokenSecretRef": {"name": "hub", "key": "token"}},
        "cache": {"persistentVolumeClaim": {"claimName": "cache"}},
        "aliases": ["mini"],
    },
    "accelerator": {"type": "ExtendedResource", "extendedResource": {"name": "nvidia.com/gpu", "count": 1}},
    "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
    "runtime": {
        "env": [{"name": "LEVEL", "value": "debug"}],
        "envFrom": [{"configMapRef": {"name": "more"}}],
        "tls": {"secretName": "tls"},
    },
    "autoscaling": {"minReplicas": 1, "maxReplicas": 5},
    "service": {"labels": {"team": "search"}, "annotations": {"owner": "search"}},
    "authentication": {"apiKeysSecretRef": {"name": "keys"}},
    "networkPolicy": {"enabled": True, "allowFrom": [{"namespaceSelector": {"matchLabels": {"team": "search"}}}]},
    "scheduling": {
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    },
    "podTemplate": {
        "labels": {"cost": "center"},
        "annotations": {"note": "text"},
        "volumes": [{"name": "prompts", "configMap": {"name": "prompts"}}],
        "volumeMounts": [{"name": "prompts", "mountPath": "/prompts"}],
        "initContainers": [{"name": "first", "image": "python:3", "command": ["true"], "securityContext": SECURITY}],
        "sidecars": [{"name": "beside", "image": "python:3", "command": ["sleep", "1"], "securityContext": SECURITY}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
}
FIXED = {True: ("metadata.ownerReferences", "spec.selector"), False: ("metadata.ownerReferences",)}
"""By whether it is a Deployment: without its owner an object is not ours any more and is left alone, and a Deployment's
selector cannot be changed at all."""


def owners(child: Any) -> list[str]:
    """The services whose child of this kind is worked on."""
    return ["alerted"] if child.kind == "PrometheusRule" else [f"copy-{index}" for index in range(COPIES)]


def definition(kind: str, plural: str) -> dict[str, Any]:
    """A kind of the Prometheus operator, as far as these tests need it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    group = "monitoring.coreos.com"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A cluster with one operator, and the services to work on."""
    with Cluster(ClusterSettings(name=f"drift-{uuid.uuid4().hex[:6]}")) as cluster:
        for namespace in (OPERATOR_NAMESPACE, "work"):
            cluster.kubectl("create", "namespace", namespace)
        cluster.apply(definition("ServiceMonitor", "servicemonitors"), definition("PrometheusRule", "prometheusrules"))
        scope = (f"--namespace={OPERATOR_NAMESPACE}", "--set=replicaCount=0,monitoring.enabled=true", "--wait")
        cluster.helm("install", RELEASE, str(CHART), *scope)
        settings = {"MANAGE_MONITORING": "true", "RESYNC_SECONDS": "5"}
        replica = Replica.start(cluster, tmp_path_factory.mktemp("operator"), "only", **settings)
        services = Services(cluster, "work")
        try:
            services.apply(*(service(f"copy-{index}", **EVERYTHING) for index in range(COPIES)))
            # Alerts are for services that are meant to run; that this one does not is nothing to them.
            nowhere = {"nodeSelector": {"there": "is-none"}}
            services.apply(service("alerted", scheduling=nowhere, monitoring={"alerts": {"enabled": True}}))
            services.wait_reason("Unschedulable", name="alerted", timeout=60)
            for index in range(COPIES):
                services.wait_reason("Suspended", name=f"copy-{index}", timeout=60)
            yield services
        finally:
            replica.end()


@pytest.fixture(scope="module")
def api(repaired: Services) -> Iterator[Any]:
    with config.new_client_from_config(str(repaired.cluster.kubeconfig)) as client:
        yield DynamicClient(client)


@dataclass
class Outcome:
    """What came of the mutations of one kind."""

    repaired: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    without_effect: list[str] = field(default_factory=list)


def _picture(live: dict[str, Any], paths: list[Any]) -> dict[str, Any]:
    return {show(path): value_at(live, path) for path in paths}


def mutate(kind: Any, name: str, mutations: list[Mutation], paths: list[Any], outcome: Outcome) -> None:
    """Apply each mutation in turn, and wait until every owned field is as before."""
    wanted = _picture(kind.get(name=name, namespace="work").to_dict(), paths)
    for mutation in mutations:
        changed = _change(kind, name, mutation)
        if changed is None:
            outcome.refused.append(str(mutation))
            continue
        if _picture(changed, paths) == wanted:
            outcome.without_effect.append(str(mutation))
            continue
        deadline = time.monotonic() + REPAIR_SECONDS
        while (there := _picture(kind.get(name=name, namespace="work").to_dict(), paths)) != wanted:
            if time.monotonic() > deadline:
                different = {key: value for key, value in there.items() if value != wanted[key]}
                outcome.kept.append(f"{mutation}: {different}")
                break
            time.sleep(0.05)
        else:
            outcome.repaired.append(str(mutation))


def _change(kind: Any, name: str, mutation: Mutation) -> dict[str, Any] | None:
    """Replace the object with the first of the mutation's bodies that is admitted; what was stored."""
    for _ in range(20):
        live = kind.get(name=name, namespace="work").to_dict()
        try:
            for body in mutation.bodies(live):
                try:
                    stored: dict[str, Any] = kind.replace(
                        body=body, name=name, namespace="work", query_params=[("fieldManager", "somebody")]
                    ).to_dict()
                    return stored
                except ApiException as error:
                    if error.status not in (400, 422):
                        raise
            return None
        except ApiException as error:
            if error.status != 409:
                raise
    raise AssertionError(f"{name} changes all the time")


@pytest.mark.parametrize("child", CHILD_KINDS, ids=lambda child: child.kind)
def test_every_field_changed_or_removed_by_hand_comes_back(repaired: Services, api: Any, child: Any) -> None:
    kind = api.resources.get(api_version=child.api_version, kind=child.kind)
    names = [child_name(service_name, child) for service_name in owners(child)]
    live = kind.get(name=names[0], namespace="work").to_dict()
    fields = applied_fields(live, FIELD_MANAGER)
    assert fields
    fixed = FIXED[child.kind == "Deployment"]
    paths = [path for path in owned_fields(fields) if not show(path).startswith(fixed)]
    mutations = [Mutation(path, removal) for path in paths for removal in (False, True)]
    outcome = Outcome()
    with ThreadPoolExecutor(COPIES) as pool:
        slices = [
            pool.submit(mutate, kind, name, mutations[i :: len(names)], paths, outcome) for i, name in enumerate(names)
        ]
    for done in slices:
        done.result()
    print(
        f"{child.kind}: {len(paths)} fields, {len(outcome.repaired)} changes repaired, "
        f"{len(outcome.refused)} refused by the API server, {len(outcome.without_effect)} without effect"
    )
    assert outcome.kept == []
    assert outcome.repaired
    changed = {show(mutation.path) for mutation in mutations if str(mutation) in outcome.repaired}
    untouched = sorted({show(path) for path in paths} - changed)
    assert [path for path in untouched if not path.endswith(UNCHANGEABLE)] == []


UNCHANGEABLE = (
    "nvidia.com/gpu",  # limit and request have to be the same
    "spec.strategy.type",  # not without its rollingUpdate; every switch is tried in tests/operator/cluster
    "spec.template.metadata.labels.embedding-operator.io/service",  # the selector's
    "].name",
    "].mountPath",
    "].containerPort",
    "].topologyKey",
    "].whenUnsatisfiable",
    "].emptyDir",  # it is empty: what somebody puts into it is theirs
)
"""What the API server never lets anybody change alone."""


@pytest.mark.parametrize("child", CHILD_KINDS, ids=lambda child: child.kind)
def test_every_child_that_is_deleted_comes_back(repaired: Services, api: Any, child: Any) -> None:
    kind = api.resources.get(api_version=child.api_version, kind=child.kind)
    name = child_name(owners(child)[0], child)
    before = kind.get(name=name, namespace="work").to_dict()
    kind.delete(name=name, namespace="work")

    def back() -> bool:
        try:
            return bool(kind.get(name=name, namespace="work").metadata.uid != before["metadata"]["uid"])
        except ApiException:
            return False

    repaired.wait(f"{child.kind} is back", back, timeout=30)
    after = kind.get(name=name, namespace="work").to_dict()
    fields = applied_fields(before, FIELD_MANAGER)
    paths = [path for path in owned_fields(fields or {}) if show(path) != "spec.replicas"]
    assert _picture(after, paths) == _picture(before, paths)
