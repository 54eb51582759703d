"""The shared cluster is up."""

import pytest

from devcluster import Cluster


@pytest.mark.cluster
def test_the_node_is_ready_and_advertises_gpus(cluster: Cluster, namespace: str) -> None:
    (node,) = cluster.objects("nodes")
    assert {"type": "Ready", "status": "True"}.items() <= node["status"]["conditions"][-1].items()
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    assert cluster.get("serviceaccount", "default", namespace) is not None
