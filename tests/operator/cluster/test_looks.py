"""What a look comes to when not everything may be read, or the spec is not understood: what runs is told all the same.

One reconciler in this process, against a real API server, with the rights of a ServiceAccount of the test's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from embedding_operator.act.apply import Applier
from embedding_operator.act.repairs import MOST
from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient
from embedding_operator.control.operator import identity_of_operator, utc_now
from embedding_operator.control.queue import WorkQueue
from embedding_operator.control.reconciler import Reconciler, Rhythm
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.mirror import Mirror
from embedding_operator.observe.observer import Observer
from embedding_operator.observe.polling import Poller
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from devcluster import Cluster
from tests.cluster.played import PLAYED, playing

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("definition")]

GROUPS = {
    "embeddingservices": "embedding-operator.io",
    "embeddingservices/status": "embedding-operator.io",
    "deployments": "apps",
    "services": "",
    "pods": "",
    "events": "",
    "horizontalpodautoscalers": "autoscaling",
    "poddisruptionbudgets": "policy",
    "networkpolicies": "networking.k8s.io",
    "servicemonitors": "monitoring.coreos.com",
    "prometheusrules": "monitoring.coreos.com",
    "configmaps": "",
}
NOT_INSTALLED = ("servicemonitors", "prometheusrules")
MODEL = {"model": {"persistentVolumeClaim": {"claimName": "models"}}, "accelerator": {"type": "None"}}
RUNS = {
    **PLAYED,
    "model": {"huggingFace": {"repository": "a/b", "revision": "0" * 40}},
    "accelerator": {"type": "None"},
}


@dataclass(frozen=True)
class Namespace:
    """One namespace, and an operator that serves it with fewer rights than it needs."""

    cluster: Cluster
    name: str

    def apply(self, spec: dict[str, Any]) -> None:
        metadata = {"name": "minilm"}
        kind = {"apiVersion": "embedding-operator.io/v1alpha1", "kind": "EmbeddingService"}
        self.cluster.apply({**kind, "metadata": metadata, "spec": spec}, namespace=self.name)

    def grant(self, *, without: Iterable[str] = ()) -> None:
        """Give the operator all rights on everything but this."""
        rules = [
            {"apiGroups": [group, "events.k8s.io"], "resources": [resource], "verbs": ["*"]}
            for resource, group in GROUPS.items()
            if resource not in without
        ]
        rbac = "rbac.authorization.k8s.io"
        metadata = {"name": "operator"}
        subject = {"kind": "ServiceAccount", "name": "operator", "namespace": self.name}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "operator"},
                "subjects": [subject],
            },
            namespace=self.name,
        )
        user = f"--as=system:serviceaccount:{self.name}:operator"

        def may(resource: str) -> bool:
            group = GROUPS[resource]
            asked = ("auth", "can-i", "patch", f"{resource}.{group}".rstrip("."), user, "--namespace", self.name)
            return self.cluster.kubectl(*asked, check=False).stdout.strip() == "yes"

        plain = [resource for resource in GROUPS if "/" not in resource and resource not in NOT_INSTALLED]
        expected = {resource: resource not in without for resource in plain}
        self.cluster.wait_until(lambda: {it: may(it) for it in plain} == expected, "the rights count", timeout=30)

    @contextlib.asynccontextmanager
    async def operator(self, *, monitoring: bool = False) -> AsyncIterator[Reconciler]:
        """A reconciler that looks live, as one does whose watches do not deliver."""
        document = yaml.safe_load(self.cluster.kubeconfig.read_text())
        token = self.cluster.kubectl("create", "token", "operator", "--namespace", self.name).stdout.strip()
        document["users"][0]["user"] = {"token": token}
        configuration = Configuration()
        await config.load_kube_config_from_dict(document, client_configuration=configuration)
        endpoints = EndpointReader(utc_now)
        poller = Poller(endpoints, lambda key: None)
        settings = Settings(namespace=self.name)
        async with ApiClient(configuration) as api:
            cluster = ClusterClient(api)
            mirror = Mirror({EMBEDDING_SERVICES: 60.0}, (None,), clock=time.monotonic, on_news=lambda key: None)
            try:
                yield Reconciler(
                    cluster=cluster,
                    observer=Observer(cluster, mirror, poller, utc_now),
                    applier=Applier(cluster),
                    operator=identity_of_operator(settings),
                    queue=WorkQueue(time.monotonic),
                    metrics=Metrics(),
                    rhythm=Rhythm(poll=1.0, progress=0.2),
                    instance="test",
                    now=utc_now,
                    manage_monitoring=monitoring,
                )
            finally:
                await poller.aclose()
                await endpoints.aclose()

    def look(
        self, until: Callable[[dict[str, Any]], bool] = bool, timeout: float = 30, *, monitoring: bool = False
    ) -> dict[str, Any]:
        """Reconcile until the status is so; the status."""

        async def looks() -> dict[str, Any]:
            async with self.operator(monitoring=monitoring) as operator:
                deadline = time.monotonic() + timeout
                while True:
                    await operator.handle((self.name, "minilm"))
                    status = (self.cluster.get("embeddingservice", "minilm", self.name) or {}).get("status") or {}
                    if until(status) or time.monotonic() > deadline:
                        assert until(status), status
                        return status
                    await asyncio.sleep(0.3)

        return asyncio.run(looks())


@pytest.fixture
def place(cluster: Cluster, namespace: str) -> Namespace:
    return Namespace(cluster, namespace)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((dict(it) for it in status.get("conditions") or () if it["type"] == kind), {})


def reason(kind: str, expected: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: condition(status, kind).get("reason") == expected


def test_a_kind_that_may_not_be_read_hides_nothing_of_the_others(place: Namespace) -> None:
    with playing(place.cluster):
        place.grant()
        place.apply(RUNS)
        place.look(lambda status: condition(status, "Ready").get("status") == "True", timeout=60)

        place.grant(without=["horizontalpodautoscalers"])
        place.cluster.kubectl("delete", "pdb", "minilm", "--namespace", place.name)
        status = place.look(reason("Applied", "Forbidden"))
        assert "HorizontalPodAutoscaler: " in condition(status, "Applied")["message"]
        assert condition(status, "Available")["status"] == "True"
        assert condition(status, "ModelLoaded")["status"] == "True"
        assert (status["replicas"], status["readyReplicas"]) == (1, 1)
        # What may be read and written is kept as it should be.
        assert place.cluster.get("pdb", "minilm", place.name) is not None

        place.grant(without=["pods"])
        status = place.look(lambda status: "Pod: " in condition(status, "Applied").get("message", ""))
        assert condition(status, "Available")["status"] == "True"
        assert "pods cannot be read" in condition(status, "Available")["message"]
        assert condition(status, "ModelLoaded")["status"] == "Unknown"
        assert status["readyReplicas"] == 1

        place.grant(without=["deployments"])
        status = place.look(lambda status: "Deployment: " in condition(status, "Applied").get("message", ""))
        assert condition(status, "Available")["status"] == "True"
        assert condition(status, "Progressing")["status"] == "Unknown"
        assert "readyReplicas" not in status


def test_nothing_is_begun_while_something_may_not_be_read(place: Namespace) -> None:
    place.grant(without=["networkpolicies"])
    place.apply(MODEL)
    status = place.look(reason("Applied", "Forbidden"))
    assert "NetworkPolicy: " in condition(status, "Applied")["message"]
    assert place.cluster.get("deployment", "minilm", place.name) is None
    assert place.cluster.get("service", "minilm", place.name) is None


def test_what_runs_is_told_although_the_spec_is_not_understood(place: Namespace) -> None:
    with playing(place.cluster), older_definition(place.cluster):
        place.grant()
        place.apply({**RUNS, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}})
        place.look(lambda status: condition(status, "Ready").get("status") == "True", timeout=60)
        before = place.look(lambda status: condition(status, "ScalingActive")["reason"] != "WaitingForAutoscaler")
        wrong = {**RUNS, "model": {"id": "without-a-source"}}
        place.apply(wrong)
        status = place.look(reason("Accepted", "InvalidSpec"))
        assert condition(status, "Ready")["reason"] == "InvalidSpec"
        assert condition(status, "Available")["reason"] == "Serving"
        assert condition(status, "Progressing")["reason"] == "RolledOut"
        assert condition(status, "ModelLoaded")["status"] == "True"
        assert condition(status, "ScalingActive")["reason"] == condition(before, "ScalingActive")["reason"]
        assert (status["replicas"], status["readyReplicas"]) == (1, 1)
        assert status["model"] == before["model"]


@contextlib.contextmanager
def older_definition(cluster: Cluster) -> Iterator[None]:
    """A definition without the rules for `spec.model`, as an older release's would be."""
    name = "embeddingservices.embedding-operator.io"
    live = cluster.get("customresourcedefinition", name) or {}
    schema = live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
    rules = schema["x-kubernetes-validations"]

    def patch(operation: dict[str, object]) -> None:
        cluster.kubectl("patch", "crd", name, "--type=json", "--patch", yaml.safe_dump([operation]))

    patch({"op": "remove", "path": path})
    try:
        yield
    finally:
        patch({"op": "add", "path": path, "value": rules})


@contextlib.contextmanager
def broken_webhook(place: Namespace) -> Iterator[None]:
    """A webhook that must be asked before a Service is changed, and does not answer."""
    name = f"broken-{place.name}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["UPDATE"]}
    webhook = {
        "name": "broken.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.name}},
        "rules": [rule],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    place.cluster.apply({**kind, "metadata": {"name": name}, "webhooks": [webhook]})
    dry = ("label", "service", "minilm", "a=b", "--overwrite", "--dry-run=server", "--namespace", place.name)
    try:
        place.cluster.wait_until(lambda: place.cluster.kubectl(*dry, check=False).returncode != 0, "the webhook counts")
        yield
    finally:
        place.cluster.kubectl("delete", "validatingwebhookconfiguration", name)


def test_one_failed_write_is_no_news_and_two_are(place: Namespace) -> None:
    place.grant()
    place.apply({**MODEL, "suspend": True})
    place.look(reason("Ready", "Suspended"))
    patch = '{"spec": {"selector": {"embedding-operator.io/service": "another"}}}'
    place.cluster.kubectl("patch", "service", "minilm", "--namespace", place.name, "--patch", patch)
    place.cluster.kubectl("delete", "pdb", "minilm", "--namespace", place.name)

    async def twice() -> list[str]:
        async with place.operator() as operator:
            told = []
            for _ in range(2):
                await operator.handle((place.name, "minilm"))
                resource = place.cluster.get("embeddingservice", "minilm", place.name) or {}
                told.append(condition(resource["status"], "Applied")["reason"])
            return told

    with broken_webhook(place):
        assert asyncio.run(twice()) == ["Applied", "RetryingAfterError"]
    place.look(reason("Applied", "Applied"))
    assert place.cluster.get("pdb", "minilm", place.name) is not None


def test_refused_children_hide_no_change_beside_them_and_are_all_named(place: Namespace) -> None:
    place.grant()
    hard = {"count/services": "0", "count/poddisruptionbudgets.policy": "0"}
    place.cluster.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}},
        namespace=place.name,
    )
    place.cluster.wait_until(
        lambda: bool((place.cluster.get("resourcequota", "small", place.name) or {}).get("status")), "the quota counts"
    )
    place.apply({**MODEL, "suspend": True})
    status = place.look(reason("Applied", "Refused"))
    message = condition(status, "Applied")["message"]
    assert "Service/minilm: " in message
    assert "PodDisruptionBudget/minilm: " in message
    assert condition(status, "Stalled")["status"] == "True"
    assert place.cluster.get("deployment", "minilm", place.name) is not None
    notes = [event.get("message", "") for event in place.cluster.objects("events", place.name)]
    assert "Deployment/minilm created" in notes


def test_a_name_that_is_taken_keeps_nothing_that_runs_from_being_repaired(place: Namespace) -> None:
    place.grant()
    place.apply({**MODEL, "suspend": True})
    place.look(reason("Ready", "Suspended"))
    place.cluster.kubectl("delete", "pdb", "minilm", "--namespace", place.name)
    theirs = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "theirs"}}}
    place.cluster.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "minilm"}, "spec": theirs},
        namespace=place.name,
    )
    place.cluster.kubectl("delete", "service", "minilm", "--namespace", place.name)
    status = place.look(reason("Applied", "NameTaken"))
    assert "PodDisruptionBudget/minilm exists" in condition(status, "Applied")["message"]
    assert place.cluster.get("service", "minilm", place.name) is not None
    left = place.cluster.get("pdb", "minilm", place.name) or {}
    assert left["spec"]["selector"] == theirs["selector"]


def test_what_a_policy_refuses_is_no_missing_right(place: Namespace) -> None:
    """Both are 403; one is the administrator's business, the other mostly the author's."""
    place.grant()
    api = "admissionregistration.k8s.io/v1"
    name = f"no-budgets-{place.name}"
    rule = {"apiGroups": ["policy"], "apiVersions": ["v1"], "resources": ["poddisruptionbudgets"], "operations": ["*"]}
    said = {"expression": "false", "message": "no budgets here", "reason": "Forbidden"}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.name}}}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [said]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    place.cluster.apply(
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": policy},
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": binding},
    )
    budget = ("create", "pdb", "x", "--selector=a=b", "--min-available=1", "--dry-run=server", "-n", place.name)
    try:
        place.cluster.wait_until(
            lambda: "no budgets here" in place.cluster.kubectl(*budget, check=False).stderr, "the policy counts"
        )
        place.apply({**MODEL, "suspend": True})
        status = place.look(reason("Applied", "Refused"))
        assert "no budgets here" in condition(status, "Applied")["message"]
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            place.cluster.kubectl("delete", kind, name)


def test_a_kind_that_is_not_installed_is_said_and_keeps_nothing_else_waiting(place: Namespace) -> None:
    """Trying again and again, as after a failed request, would say nothing of what to do."""
    place.grant()
    place.apply({**MODEL, "suspend": True, "monitoring": {"serviceMonitor": {"enabled": True}}})
    status = place.look(reason("Applied", "Refused"), monitoring=True)
    message = condition(status, "Applied")["message"]
    assert "ServiceMonitor/minilm: the cluster does not have this kind of object" in message
    assert place.cluster.get("deployment", "minilm", place.name) is not None


def test_a_child_that_somebody_holds_back_is_named_and_holds_up_no_other(place: Namespace) -> None:
    place.grant()
    place.apply({**MODEL, "suspend": True})
    place.look(reason("Ready", "Suspended"))
    hold = ("patch", "pdb", "minilm", "--namespace", place.name, "--type=merge", "--patch")
    place.cluster.kubectl(*hold, '{"metadata": {"finalizers": ["example.com/audit"]}}')
    try:
        place.cluster.kubectl("delete", "pdb", "minilm", "--namespace", place.name, "--wait=false")
        place.cluster.kubectl("delete", "service", "minilm", "--namespace", place.name)
        status = place.look(reason("Applied", "WaitingForDeletion"))
        assert (
            "PodDisruptionBudget/minilm (held by the finalizer example.com/audit)"
            in (condition(status, "Applied")["message"])
        )
        assert place.cluster.get("service", "minilm", place.name) is not None
    finally:
        place.cluster.kubectl(*hold, '{"metadata": {"finalizers": null}}')
    place.look(reason("Applied", "Applied"))


def test_a_race_with_another_controller_is_ended_and_told(place: Namespace) -> None:
    place.grant()
    place.apply({**MODEL, "suspend": True})
    place.look(reason("Ready", "Suspended"))
    back = '{"spec": {"selector": {"embedding-operator.io/service": "another"}}}'

    async def race() -> int:
        async with place.operator() as operator:
            for rounds in range(2 * MOST):
                place.cluster.kubectl("patch", "service", "minilm", "--namespace", place.name, "--patch", back)
                await operator.handle((place.name, "minilm"))
                service = place.cluster.get("service", "minilm", place.name) or {}
                if service["spec"]["selector"]["embedding-operator.io/service"] == "another":
                    return rounds
            return -1

    assert asyncio.run(race()) == MOST
    status = (place.cluster.get("embeddingservice", "minilm", place.name) or {})["status"]
    assert condition(status, "Applied")["status"] == "False"
    assert "of Service/minilm back all the time" in condition(status, "Applied")["message"]
