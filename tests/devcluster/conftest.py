"""Fixtures of devcluster's own tests."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.control.certificates import Authority
from tests.devcluster.helpers import Object


@pytest.fixture(scope="session")
def cluster(cluster: Cluster) -> Cluster:
    """The shared cluster, if it is a devcluster: these tests are about devcluster itself."""
    if "DEVCLUSTER_KUBECONFIG" in os.environ:
        pytest.skip("tests devcluster itself, not another cluster")
    return cluster


@pytest.fixture
def namespaces(cluster: Cluster) -> None:
    """For tests of what a container sees: skips where this machine refuses namespaces."""
    if not cluster.state.isolated:
        pytest.skip("this machine refuses user namespaces: containers see the host's file system")


@pytest.fixture
def tls_secret(tmp_path: Path) -> Object:
    """A Secret `tls` with a server certificate."""
    pair = Authority(tmp_path, "ca").issue("server", "server", names=["localhost"])
    data = {
        "tls.crt": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "tls.key": base64.b64encode(pair.key.read_bytes()).decode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tls"},
        "type": "kubernetes.io/tls",
        "data": data,
    }
