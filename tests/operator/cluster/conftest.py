"""A cluster with the generated CRD and no operator, and namespaces that enforce Pod Security `restricted`.

These tests own their cluster: an operator at work would change what they apply.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import config
from kubernetes.dynamic import DynamicClient

from devcluster import Cluster, ClusterSettings
from tests.operator.helpers import CRD

DEFINITION = "embeddingservices.embedding-operator.io"


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with Cluster(ClusterSettings(name=f"api-{uuid.uuid4().hex[:6]}")) as started:
        yield started


def conditions(cluster: Cluster) -> dict[str, str]:
    """Type to status of the definition's conditions; none at first."""
    found = cluster.get("customresourcedefinition", DEFINITION) or {}
    return {it["type"]: it["status"] for it in found.get("status", {}).get("conditions") or ()}


@pytest.fixture(scope="package")
def definition(cluster: Cluster) -> None:
    """The generated CRD, established and structural."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
    cluster.wait_until(lambda: conditions(cluster).get("Established") == "True", f"{DEFINITION} is established")
    assert "NonStructuralSchema" not in conditions(cluster)
    # Established comes a moment before the first request is answered.
    cluster.wait_until(
        lambda: cluster.kubectl("get", "embeddingservices", check=False).returncode == 0, f"{DEFINITION} is served"
    )


@pytest.fixture
def namespace(cluster: Cluster, namespace: str) -> str:
    """The test's own namespace, with Pod Security `restricted` enforced."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


@pytest.fixture(scope="package")
def api(cluster: Cluster) -> Iterator[Any]:
    """A dynamic client with the rights of the cluster's kubeconfig."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as client:
        yield DynamicClient(client)


@pytest.fixture(scope="package")
def services(api: Any, definition: None) -> Any:
    """The EmbeddingService resource."""
    return api.resources.get(api_version="embedding-operator.io/v1alpha1", kind="EmbeddingService")
