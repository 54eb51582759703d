"""A process that lost its leadership while it prepared a write does not send it."""

from __future__ import annotations

import asyncio

import pytest
from embedding_operator.api.kinds import SERVICES
from embedding_operator.cluster import ClusterClient, NotLeading
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from devcluster import Cluster

pytestmark = pytest.mark.cluster


def test_leadership_is_asked_again_right_before_a_write_is_sent(cluster: Cluster, namespace: str) -> None:
    counted: list[str] = []

    async def scenario() -> None:
        configuration = Configuration()
        await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
        async with ApiClient(configuration) as api:
            answers = iter([True, False])
            client = ClusterClient(
                api, may_write=lambda: next(answers), count=lambda verb, resource, status: counted.append(verb)
            )
            body = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "late", "namespace": namespace},
                "spec": {"ports": [{"port": 80}]},
            }
            with pytest.raises(NotLeading):
                await client.create(SERVICES, body)
            assert counted == []
            assert await client.get(SERVICES, namespace, "late") is None

    asyncio.run(scenario())
