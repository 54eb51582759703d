"""The cluster that all suites share: a devcluster for the session, or the one that DEVCLUSTER_KUBECONFIG names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster, ClusterSettings


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with one node and four GPUs, started once per session.

    DEVCLUSTER_KUBECONFIG=FILE uses another cluster instead, of which kubectl and helm are expected on PATH. There,
    what only a devcluster can do (failures on demand, the audit log) raises NotRunningError.
    """
    given = os.environ.get("DEVCLUSTER_KUBECONFIG")
    if given:
        yield Cluster.of_kubeconfig(Path(given))
        return
    with Cluster(ClusterSettings(name=f"tests-{uuid.uuid4().hex[:6]}")) as started:
        yield started


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own; removed afterwards, with what is in it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    cluster.wait_until(
        lambda: (
            cluster.get("serviceaccount", "default", name) is not None
            and cluster.get("configmap", "kube-root-ca.crt", name) is not None
        ),
        f"namespace {name} has its default ServiceAccount",
        timeout=30,
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
