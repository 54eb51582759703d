"""A real API server that knows the CRD, and a namespace that enforces the Pod Security level `restricted`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

from tests.operator.cluster.control_plane import api_server
from tests.operator.helpers import CRD


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with api_server(tmp_path_factory.mktemp("control-plane")) as path:
        yield path


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Iterator[Any]:
    """A dynamic client with every right. The CRD is established."""
    with config.new_client_from_config(str(kubeconfig)) as client:
        dynamic = DynamicClient(client)
        definitions = dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
        body = yaml.safe_load(CRD.read_text(encoding="utf-8"))
        definitions.server_side_apply(body, name=body["metadata"]["name"], field_manager="test", force_conflicts=True)
        _wait_until_established(definitions, body["metadata"]["name"])
        yield dynamic


def _wait_until_established(definitions: Any, name: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = definitions.get(name=name).to_dict().get("status", {})
        conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
        if conditions.get("Established", {}).get("status") == "True":
            assert "NonStructuralSchema" not in conditions
            return
        time.sleep(0.1)
    raise AssertionError(f"the CRD was never established: {status}")


@pytest.fixture
def namespace(api: Any) -> str:
    """A fresh namespace that admits restricted Pods only. It is left behind: deleting needs a controller."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespaces = api.resources.get(api_version="v1", kind="Namespace")
    namespaces.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return name


@pytest.fixture
def services(api: Any) -> Any:
    """The EmbeddingService resource."""
    deadline = time.monotonic() + 30
    while True:
        try:
            resource = api.resources.get(api_version="embedding-operator.io/v1alpha1", kind="EmbeddingService")
            resource.get(namespace="default")
        except ApiException:
            # Established comes a moment before the first request is answered.
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return resource
