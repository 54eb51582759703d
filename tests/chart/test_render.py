"""What holds for every object of every rendering: a matrix of values through Helm, for each Kubernetes version."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.helpers import (
    ALL_ON,
    CHART,
    CLUSTER_SCOPED,
    FULLNAME,
    MINORS,
    NAMESPACE,
    RELEASE,
    Rendered,
    helm,
    render,
    walk,
)
from tools.chart_values import Value, read

VALUES = [value for value in read((CHART / "values.yaml").read_text()) if not value.group]
ALL_OFF = {value.path: False for value in VALUES if value.default is True} | {"replicaCount": 0, "crds.keep": True}
COLLECTIONS = [value for value in VALUES if isinstance(value.default, list | dict)]

MATRIX: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, False),
    "all-on": ({}, True),
    "all-off": (ALL_OFF, False),
    "namespaced": ({"watchNamespaces": ["search", "recommendations"]}, False),
    "all-on-namespaced": ({"watchNamespaces": ["search", "recommendations"]}, True),
    "available": ({"replicaCount": 2}, False),
    "odd-names": ({"watchNamespaces": ["1e3", "true"], "nameOverride": "7"}, False),
}


def _emptied(value: Value) -> list[tuple[str, dict[str, Any]]]:
    forms: list[Any] = [type(value.default)()]
    if (
        value.path != "networkPolicy.apiServerPorts"
    ):  # without a port the rule would open them all, so the schema refuses
        forms.append(None)
    return [(f"{value.path}={form}", {value.path: form}) for form in forms]


EMPTIED = [case for value in COLLECTIONS if value.path != "networkPolicy.apiServerPorts" for case in _emptied(value)]


def rendered(values: dict[str, Any], all_on: bool) -> Rendered:
    """One row of the matrix."""
    return render(values, *([ALL_ON] if all_on else []))


def check(result: Rendered) -> None:
    """What no value may break."""
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in result.objects]
    assert len(names) == len(set(names)), names
    for item in result.objects:
        _check_metadata(item)
    _check_selectors(result)
    _check_restricted(result)
    for role in [*result.all("Role"), *result.all("ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not any(resource.split("/")[0] == "secrets" for resource in rule["resources"])
    for service in result.all("Service"):
        assert all(port["port"] >= 1024 for port in service["spec"]["ports"])
    assert "no value" not in result.text
    assert "<nil>" not in result.text


def _check_metadata(item: dict[str, Any]) -> None:
    metadata = item["metadata"]
    assert ("namespace" in metadata) == (item["kind"] not in CLUSTER_SCOPED), metadata
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", metadata["name"])
    labels = metadata["labels"]
    assert labels["app.kubernetes.io/instance"] == RELEASE
    assert labels["app.kubernetes.io/managed-by"] == "Helm"
    assert labels["app.kubernetes.io/part-of"] == "embedding-operator"
    assert labels["app.kubernetes.io/component"] == "operator"
    assert labels["helm.sh/chart"].startswith("embedding-operator-")
    assert all(isinstance(value, str) for value in labels.values())


def _check_selectors(result: Rendered) -> None:
    pod_labels = result.deployment["spec"]["template"]["metadata"]["labels"]
    selector = result.deployment["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert selector.items() <= pod_labels.items()
    for service in result.all("Service"):
        assert service["spec"]["selector"] == selector
    for budget in result.all("PodDisruptionBudget"):
        assert budget["spec"]["selector"] == {"matchLabels": selector}
    for policy in result.all("NetworkPolicy"):
        assert policy["spec"]["podSelector"] == {"matchLabels": selector}
    for monitor in result.all("ServiceMonitor"):
        assert monitor["spec"]["selector"] == {"matchLabels": selector}
        assert monitor["spec"]["selector"]["matchLabels"].items() <= result.one("Service")["metadata"]["labels"].items()


def _check_restricted(result: Rendered) -> None:
    pod = result.pod_spec
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert result.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["enableServiceLinks"] is False
    assert [sorted(volume) for volume in pod["volumes"]] == [["emptyDir", "name"]]
    assert result.container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    forbidden = {"runAsUser", "runAsGroup", "hostPath", "hostNetwork", "hostPID", "hostIPC", "hostPort", "privileged"}
    assert not forbidden & {key for key, _ in walk(pod)}
    assert "host" not in {
        key for name in ("startupProbe", "livenessProbe", "readinessProbe") for key, _ in walk(result.container[name])
    }


@pytest.mark.parametrize(("values", "all_on"), MATRIX.values(), ids=MATRIX)
def test_every_object_is_sound(values: dict[str, Any], all_on: bool) -> None:
    check(rendered(values, all_on))


@pytest.mark.parametrize("values", [case for _, case in EMPTIED], ids=[name for name, _ in EMPTIED])
def test_an_emptied_value_breaks_nothing_else(values: dict[str, Any]) -> None:
    check(render(values, ALL_ON))


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize(("values", "all_on"), MATRIX.values(), ids=MATRIX)
def test_every_object_is_valid_in_every_supported_kubernetes(values: dict[str, Any], all_on: bool, minor: str) -> None:
    unknown = []
    for item in rendered(values, all_on).objects:
        try:
            kubernetes_validate.validate(item, minor, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.append(item["kind"])
    assert set(unknown) <= {"ServiceMonitor"}  # not Kubernetes' own


@pytest.mark.parametrize(("values", "all_on"), MATRIX.values(), ids=MATRIX)
def test_helm_lint_is_content(values: dict[str, Any], all_on: bool, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    nested: dict[str, Any] = {}
    for path, value in values.items():
        node = nested
        *groups, last = path.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    file.write_text(json.dumps(nested))
    _lint(*(["--values", str(ALL_ON)] if all_on else []), "--values", str(file))


@pytest.mark.parametrize("minor", MINORS)
def test_helm_lint_is_content_in_every_supported_kubernetes(minor: str) -> None:
    """Helm's linter knows which API versions a Kubernetes no longer serves."""
    _lint("--values", str(ALL_ON), "--kube-version", f"{minor}.0")


def _lint(*arguments: str) -> None:
    result = helm("lint", "--strict", str(CHART), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_older_kubernetes_is_refused() -> None:
    result = helm("template", RELEASE, str(CHART), "--kube-version", "1.32.9")
    assert result.returncode != 0
    assert "requires kubeVersion: >=1.33.0-0" in result.stderr


def test_all_on_sets_every_value() -> None:
    given = yaml.safe_load(ALL_ON.read_text())
    same = []
    for value in VALUES:
        node: Any = given
        for part in value.path.split("."):
            node = node[part]
        if node == value.default:
            same.append(value.path)
    # These are on by default, and what they add is wanted in the all-on rendering; watchNamespaces has rows of its own.
    assert same == [
        "watchNamespaces",
        "crds.enabled",
        "serviceAccount.create",
        "rbac.create",
        "rbac.aggregateClusterRoles",
        "metrics.service.enabled",
        "disruptionBudget.enabled",
    ]


def test_all_off_leaves_only_the_deployment() -> None:
    assert [item["kind"] for item in render(ALL_OFF).objects] == ["Deployment"]


def test_the_default_objects() -> None:
    kinds = sorted(item["kind"] for item in render().objects)
    assert kinds == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ]


def test_names_follow_the_release() -> None:
    assert render().deployment["metadata"]["name"] == FULLNAME
    assert render(name="embedding-operator").deployment["metadata"]["name"] == "embedding-operator"
    assert render({"nameOverride": "vectors"}).deployment["metadata"]["name"] == f"{RELEASE}-vectors"
    assert render({"fullnameOverride": "mine"}).deployment["metadata"]["name"] == "mine"
    long = render(name="r" * 53)
    check_lengths = [
        len(item["metadata"]["name"]) for item in long.objects if item["kind"] != "CustomResourceDefinition"
    ]
    assert max(check_lengths) <= 63


def test_selectors_do_not_depend_on_values_or_version() -> None:
    """A Deployment's selector is immutable: were it to change, no upgrade could succeed."""
    expected = {"app.kubernetes.io/name": "embedding-operator", "app.kubernetes.io/instance": RELEASE}
    assert render().deployment["spec"]["selector"] == {"matchLabels": expected}
    assert render({"nameOverride": ""}, ALL_ON).deployment["spec"]["selector"] == {"matchLabels": expected}


def test_nothing_depends_on_what_the_cluster_offers() -> None:
    """Renderers without a cluster know no capabilities, and must show what an install would do."""
    for template in (CHART / "templates").rglob("*"):
        if template.is_file():
            assert ".Capabilities" not in template.read_text(), template
            assert "lookup" not in template.read_text().split(), template


def test_rendered_namespace_is_the_releases() -> None:
    for item in render({}, ALL_ON).objects:
        assert item["metadata"].get("namespace", NAMESPACE) == NAMESPACE
