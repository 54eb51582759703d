"""The chart's life on a real control plane: install, upgrade, roll back, uninstall, and what the operator may do.

These tests own their cluster: they delete the CustomResourceDefinition, and with it every EmbeddingService.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from devcluster import Cluster, ClusterSettings
from tests.chart.helpers import CHART, REPOSITORY, value_arguments
from tests.chart.test_rbac import BUDGET

pytestmark = pytest.mark.cluster

RELEASE = "embedding-operator"
NAMESPACE = "operators"
CRD = "embeddingservices.embedding-operator.io"
USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
LEASES = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    with Cluster(ClusterSettings(name=f"chart-{uuid.uuid4().hex[:6]}")) as started:
        for name, labels in ((NAMESPACE, RESTRICTED), ("search", {}), ("ads", {})):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            started.apply(namespace)
        yield started


@pytest.fixture
def bare(own_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without any release and without the CustomResourceDefinition, before and after the test."""
    yield own_cluster
    for release in json.loads(own_cluster.helm("list", "--all-namespaces", "--output", "json").stdout):
        own_cluster.helm("uninstall", release["name"], "--namespace", release["namespace"], "--wait")
    own_cluster.kubectl("delete", "crd", CRD, "--ignore-not-found", "--wait")
    # The garbage collector learns of new kinds every 30 seconds only, too late for a definition that lived for five.
    children = ("deployments,services,poddisruptionbudgets", "--selector", "embedding-operator.io/service")
    granted = ("roles,rolebindings", "--selector", f"app.kubernetes.io/instance={RELEASE}")
    for left in (children, granted):
        own_cluster.kubectl("delete", *left, "--all-namespaces", "--wait")


def install(cluster: Cluster, values: dict[str, Any] | None = None, chart: Path = CHART, name: str = RELEASE) -> str:
    """`helm install --wait`: returns Helm's output when the operator's Pods are ready."""
    arguments = value_arguments(values)
    scope = ("--namespace", NAMESPACE, "--wait", "--timeout", "90s")
    return _explained(cluster, "install", name, str(chart), *scope, *arguments)


def upgrade(cluster: Cluster, values: dict[str, Any] | None = None) -> str:
    """`helm upgrade --wait` to the chart as it is, from its default values."""
    scope = ("--namespace", NAMESPACE, "--wait", "--timeout", "90s", "--reset-values")
    return _explained(cluster, "upgrade", RELEASE, str(CHART), *scope, *value_arguments(values))


def _explained(cluster: Cluster, *arguments: str) -> str:
    done = cluster.helm(*arguments, check=False)
    if done.returncode:
        logs = cluster.kubectl("logs", "--namespace", NAMESPACE, f"deployment/{RELEASE}", "--tail=30", check=False)
        pytest.fail(f"helm {arguments[0]}: {done.stderr}\n{cluster.overview()}\n{logs.stdout}{logs.stderr}")
    return done.stdout


def service(name: str, namespace: str) -> dict[str, Any]:
    """An EmbeddingService that renders its children and runs no Pod."""
    return {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"huggingFace": {"repository": "owner/model", "revision": "0" * 40}}, "suspend": True},
    }


def uid(cluster: Cluster, name: str, namespace: str) -> str:
    found = cluster.get("embeddingservice", name, namespace)
    assert found is not None
    return str(found["metadata"]["uid"])


def wait_for_children(cluster: Cluster, name: str, namespace: str) -> None:
    """Until the operator has created the children and written a status."""

    def there() -> bool:
        resource = cluster.get("embeddingservice", name, namespace) or {}
        children = [cluster.get(kind, name, namespace) for kind in ("deployment", "service")]
        return all(children) and bool(resource.get("status", {}).get("conditions"))

    cluster.wait_until(there, f"{namespace}/{name} has a Deployment, a Service and conditions", timeout=30)


def can(
    cluster: Cluster, verb: str, resource: str, namespace: str | None, user: str = USER, subresource: str = ""
) -> bool:
    """What the API server says to `kubectl auth can-i`; a namespace of None means all."""
    scope = ["--namespace", namespace] if namespace else ["--all-namespaces"]
    asked = cluster.kubectl(
        *("auth", "can-i", verb, resource, *scope, f"--as={user}", f"--subresource={subresource}"), check=False
    )
    return asked.stdout.strip() == "yes"


def used_rights(cluster: Cluster, pod: str) -> set[tuple[str, str, str]]:
    """What the operator's Pod has asked for so far; fails when anything was refused."""
    used = set()
    for event in cluster.audit_events(USER):
        if pod not in event["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name", []):
            continue
        assert event.get("responseStatus", {}).get("code") not in (401, 403), event
        if "objectRef" in event:
            target = event["objectRef"]
            resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
            used.add((target.get("apiGroup", ""), resource, event["verb"]))
    return used


def operators(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.objects("pods", NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")


def test_install_runs_the_operator_with_the_charts_rights_and_nothing_more(bare: Cluster) -> None:
    output = install(bare)
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/{RELEASE}" in output
    bare.apply(service("one", "search"))
    wait_for_children(bare, "one", "search")
    (pod,) = operators(bare)
    assert pod["spec"]["serviceAccountName"] == RELEASE
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0

    used = used_rights(bare, pod["metadata"]["name"])
    assert ("apps", "deployments", "patch") in used or ("apps", "deployments", "create") in used
    assert used <= BUDGET | LEASES
    assert can(bare, "create", "deployments.apps", "search")
    for verb, resource in (("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("get", "nodes")):
        assert not can(bare, verb, resource, "search"), f"{verb} {resource}"
    assert not can(bare, "update", "embeddingservices.embedding-operator.io", "search")
    assert not can(bare, "update", "leases.coordination.k8s.io", NAMESPACE)  # any but its own
    assert can(bare, "update", f"leases.coordination.k8s.io/{RELEASE}", NAMESPACE)

    address = bare.service_url(RELEASE, NAMESPACE, "http")
    for path, expected in (("healthz", ""), ("readyz", ""), ("metrics", "# TYPE ")):
        answer = httpx.get(f"{address}/{path}", timeout=10, trust_env=False)
        assert answer.status_code == 200
        assert expected in answer.text

    before = bare.get("deployment", RELEASE, NAMESPACE)
    upgrade(bare)
    after = bare.get("deployment", RELEASE, NAMESPACE)
    assert before is not None
    assert after is not None
    assert before["metadata"]["generation"] == after["metadata"]["generation"]  # an upgrade without a change


def test_upgrade_and_roll_back(bare: Cluster, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    template = older / "templates" / "crds" / "embeddingservices.yaml"
    template.write_text(template.read_text().replace("    - emb\n", "    - older\n"))
    install(bare, chart=older)
    bare.apply(service("one", "search"))
    wait_for_children(bare, "one", "search")
    before, child = uid(bare, "one", "search"), bare.get("deployment", "one", "search")
    assert child is not None

    upgrade(bare, {"replicaCount": 2, "logging.level": "Debug"})
    crd = bare.get("crd", CRD)
    assert crd is not None
    assert crd["spec"]["names"]["shortNames"] == ["emb"]  # upgraded with the release
    assert bare.get("poddisruptionbudget", RELEASE, NAMESPACE) is not None
    deployment = bare.get("deployment", RELEASE, NAMESPACE)
    assert deployment is not None
    assert deployment["status"]["readyReplicas"] == 2
    bare.wait_until(lambda: len(operators(bare)) == 2, "the old Pod is gone")
    lease = bare.get("lease", RELEASE, NAMESPACE)
    assert lease is not None

    def led_by_a_new_pod() -> bool:
        names = {pod["metadata"]["name"] for pod in operators(bare)}
        return (bare.get("lease", RELEASE, NAMESPACE) or lease)["spec"].get("holderIdentity") in names

    bare.wait_until(led_by_a_new_pod, "one of the two Pods leads", timeout=30)

    bare.helm("rollback", RELEASE, "1", "--namespace", NAMESPACE, "--wait", "--timeout", "90s")
    deployment = bare.get("deployment", RELEASE, NAMESPACE)
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1
    assert bare.get("poddisruptionbudget", RELEASE, NAMESPACE) is None

    # Neither touched the resource or restarted what it runs.
    assert uid(bare, "one", "search") == before
    now = bare.get("deployment", "one", "search")
    assert now is not None
    assert (now["metadata"]["uid"], now["metadata"]["generation"]) == (
        child["metadata"]["uid"],
        child["metadata"]["generation"],
    )


def test_a_stopping_operator_gives_its_lease_up_and_leaves_in_order(bare: Cluster) -> None:
    install(bare)

    def holder() -> str:
        return str((bare.get("lease", RELEASE, NAMESPACE) or {}).get("spec", {}).get("holderIdentity") or "")

    (pod,) = operators(bare)
    name = pod["metadata"]["name"]
    bare.wait_until(lambda: holder() == name, "the Pod leads", timeout=30)
    hold = ("patch", "pod", name, "--namespace", NAMESPACE, "--type=merge", "--patch")
    bare.kubectl(*hold, '{"metadata": {"finalizers": ["example.com/look"]}}')  # keeps its last status to be read
    bare.kubectl("scale", f"deployment/{RELEASE}", "--namespace", NAMESPACE, "--replicas=0")

    def ended() -> dict[str, Any]:
        found: dict[str, Any] = bare.get("pod", name, NAMESPACE) or {}
        state: dict[str, Any] = found["status"]["containerStatuses"][0]["state"]
        return state.get("terminated", {})

    try:
        bare.wait_until(lambda: bool(ended()), "the operator ended", timeout=30)
        assert ended()["exitCode"] == 0
        assert holder() == ""
    finally:
        bare.kubectl(*hold, '{"metadata": {"finalizers": null}}')


def test_uninstall_keeps_the_definition_the_resources_and_what_they_run(bare: Cluster) -> None:
    install(bare)
    bare.apply(service("one", "search"))
    wait_for_children(bare, "one", "search")
    before = uid(bare, "one", "search")
    output = bare.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait").stdout
    assert CRD in output  # Helm names what it kept
    assert uid(bare, "one", "search") == before
    assert bare.get("deployment", "one", "search") is not None
    kinds = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings"
    left = bare.objects(kinds, selector=f"app.kubernetes.io/instance={RELEASE}")
    assert [item["metadata"]["name"] for item in left if item["kind"] != "Pod"] == []

    # The same release takes it over again; one of another name only when told to.
    install(bare)
    bare.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    scope = ("--namespace", NAMESPACE, "--wait", "--timeout", "90s")
    refused = bare.helm("install", "other", str(CHART), *scope, check=False)
    assert refused.returncode != 0
    assert "invalid ownership metadata" in refused.stderr
    bare.helm("uninstall", "other", "--namespace", NAMESPACE, "--ignore-not-found")
    bare.helm("install", "other", str(CHART), *scope, "--take-ownership")
    assert uid(bare, "one", "search") == before


def test_uninstall_without_keep_removes_everything(bare: Cluster) -> None:
    install(bare, {"crds.keep": False})
    bare.apply(service("one", "search"))
    wait_for_children(bare, "one", "search")
    bare.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    bare.wait_until(lambda: bare.get("crd", CRD) is None, "the definition is gone", timeout=60)


def test_switching_the_definition_off_does_not_delete_it(bare: Cluster) -> None:
    install(bare)
    bare.apply(service("one", "search"))
    before = uid(bare, "one", "search")
    upgrade(bare, {"crds.enabled": False})
    assert uid(bare, "one", "search") == before


def test_a_namespaced_install_serves_its_namespaces_and_touches_no_other(bare: Cluster) -> None:
    install(bare, {"watchNamespaces": ["search"]})
    instance = f"app.kubernetes.io/instance={RELEASE}"
    assert bare.objects("clusterroles,clusterrolebindings", selector=instance) == []
    bare.apply(service("mine", "search"), service("other", "ads"))
    wait_for_children(bare, "mine", "search")
    assert bare.get("deployment", "other", "ads") is None
    assert not (bare.get("embeddingservice", "other", "ads") or {}).get("status")
    assert can(bare, "patch", "deployments.apps", "search")
    for namespace in ("ads", NAMESPACE, None):
        assert not can(bare, "list", "deployments.apps", namespace)
        assert not can(bare, "list", "embeddingservices.embedding-operator.io", namespace)
    (pod,) = operators(bare)
    used = used_rights(bare, pod["metadata"]["name"])
    assert ("apps", "deployments", "create") in used or ("apps", "deployments", "patch") in used
    assert used <= BUDGET | LEASES


def test_people_with_the_clusters_roles_see_and_edit(bare: Cluster) -> None:
    install(bare)
    for role in ("view", "edit", "admin"):
        bare.kubectl(
            *("create", "rolebinding", f"{role}-person", f"--clusterrole={role}", f"--user={role}-person"),
            *("--namespace", "search"),
        )
    resource = f"{CRD.split('.')[0]}.embedding-operator.io"
    bare.wait_until(lambda: can(bare, "create", resource, "search", "admin-person"), "the roles are aggregated")
    allowed = {
        role: [verb for verb in ("list", "create", "delete") if can(bare, verb, resource, "search", f"{role}-person")]
        for role in ("view", "edit", "admin")
    }
    assert allowed == {"view": ["list"], "edit": ["list", "create", "delete"], "admin": ["list", "create", "delete"]}
    assert not can(bare, "patch", resource, "search", "admin-person", subresource="status")
    assert can(bare, "patch", resource, "search", subresource="status")  # the operator's own


def test_a_tenant_installs_with_rights_that_an_administrator_granted(bare: Cluster) -> None:
    """The way of the chart's README for those who may not write CustomResourceDefinitions or grant rights."""
    values = {"watchNamespaces": ["search"]}
    rights = ("templates/rbac-operator.yaml", "templates/rbac-leader-election.yaml")
    only = [item for template in rights for item in ("--show-only", template)]
    scope = ("--namespace", NAMESPACE)
    bare.kubectl("apply", "--server-side", "--filename", str(REPOSITORY / "crds"))
    bare.kubectl(
        *("apply", "--filename", "-"),
        input=bare.helm("template", RELEASE, str(CHART), *scope, *only, *value_arguments(values)).stdout,
    )
    bare.kubectl("create", "rolebinding", "tenant", "--clusterrole=admin", "--user=tenant", *scope)
    tenant = ("--kube-as-user", "tenant")
    refused = bare.helm("install", RELEASE, str(CHART), *scope, *tenant, *value_arguments(values), check=False)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr
    bare.helm("uninstall", RELEASE, *scope, *tenant, "--ignore-not-found")

    less = value_arguments(values | {"rbac.create": False, "crds.enabled": False})
    _explained(bare, "install", RELEASE, str(CHART), *scope, *tenant, "--wait", "--timeout", "60s", *less)
    bare.apply(service("one", "search"))
    wait_for_children(bare, "one", "search")
