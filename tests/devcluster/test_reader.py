"""Objects read without kubectl are those that kubectl shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster import Cluster
from devcluster.errors import CommandError

pytestmark = pytest.mark.cluster


def shown(cluster: Cluster, *arguments: str) -> Any:
    return json.loads(cluster.kubectl("get", *arguments, "--output=json").stdout)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("configmap", "kube-root-ca.crt"),
        ("cm", "kube-root-ca.crt"),
        ("ConfigMaps", "kube-root-ca.crt"),
        ("serviceaccounts", "default"),
        ("sa", "default"),
        ("namespaces", "default"),
        ("clusterrole", "cluster-admin"),
        ("deployments.apps", "one"),
        ("hpa", "one"),
    ],
)
def test_an_object_is_the_one_that_kubectl_shows(cluster: Cluster, namespace: str, kind: str, name: str) -> None:
    cluster.kubectl("create", "deployment", "one", "--image=python", "--replicas=0", f"--namespace={namespace}")
    cluster.kubectl("autoscale", "deployment", "one", "--max=2", f"--namespace={namespace}")

    def same() -> bool:
        return cluster.get(kind, name, namespace) == shown(cluster, kind, name, f"--namespace={namespace}")

    cluster.wait_until(same, "both see the same", timeout=20)  # controllers may change it between two looks


def test_collections_are_those_that_kubectl_shows(cluster: Cluster, namespace: str) -> None:
    for name, colour in (("one", "red"), ("two", "blue")):
        cluster.kubectl("create", "configmap", name, f"--namespace={namespace}")
        cluster.kubectl("label", "configmap", name, f"colour={colour}", f"--namespace={namespace}")
    selected = cluster.objects("configmaps,secrets", namespace, "colour in (red)")
    assert [item["metadata"]["name"] for item in selected] == ["one"]
    assert (selected[0]["apiVersion"], selected[0]["kind"]) == ("v1", "ConfigMap")
    everywhere = cluster.objects("configmaps", selector="colour")
    assert {item["metadata"]["namespace"] for item in everywhere} >= {namespace}
    assert cluster.objects("sa", namespace) == shown(cluster, "sa", f"--namespace={namespace}")["items"]


def test_what_is_not_there_is_none_and_an_unknown_kind_is_named(cluster: Cluster, namespace: str) -> None:
    assert cluster.get("configmap", "nothing", namespace) is None
    with pytest.raises(CommandError, match="no resource type 'unicorn'"):
        cluster.get("unicorn", "one", namespace)


def test_a_kind_that_is_new_is_found(cluster: Cluster, namespace: str) -> None:
    group = f"{namespace}.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gnomes.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gnomes", "singular": "gnome", "kind": "Gnome", "shortNames": ["gn"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    assert cluster.get("configmap", "nothing", namespace) is None  # what kinds there are is known by now
    cluster.apply(definition)
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/gnomes.{group}")
        gnome = {"apiVersion": f"{group}/v1", "kind": "Gnome", "metadata": {"name": "one"}}
        cluster.apply(gnome, namespace=namespace)

        def known() -> bool:
            try:
                return cluster.get("gn", "one", namespace) is not None
            except CommandError:
                return False

        cluster.wait_until(known, "the kind is discovered", timeout=20)
    finally:
        cluster.kubectl("delete", "crd", f"gnomes.{group}")
