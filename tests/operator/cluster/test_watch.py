"""List and watch against a real API server: what comes, what does not, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from embedding_operator.api.kinds import CONFIG_MAPS
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.observe.follow import follow
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from devcluster import Cluster
from tests.operator.observe.sink import Seen

pytestmark = pytest.mark.cluster


def run(cluster: Cluster, scenario: Callable[[ClusterClient], Awaitable[None]]) -> None:
    async def main() -> None:
        configuration = Configuration()
        await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
        async with ApiClient(configuration) as api:
            await scenario(ClusterClient(api))

    asyncio.run(main())


def config_map(namespace: str, name: str, watched: str, **data: str) -> dict[str, Any]:
    labels = {"watched": watched}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_changes_arrive_as_they_happen(cluster: Cluster, namespace: str) -> None:
    async def scenario(client: ClusterClient) -> None:
        await client.create(CONFIG_MAPS, config_map(namespace, "before", namespace))
        seen = Seen()
        following = asyncio.create_task(follow(client, CONFIG_MAPS, f"watched={namespace}", seen))

        async def until(expected: dict[str, str]) -> None:
            wanted = {(namespace, name): value for name, value in expected.items()}

            def found() -> dict[tuple[str, str], str]:
                return {key: (live.get("data") or {}).get("key", "") for key, live in seen.entries.items()}

            deadline = time.monotonic() + 5  # far less than a failed watch would take to be replaced by a list
            while found() != wanted and time.monotonic() < deadline:  # noqa: ASYNC110 - what was seen is plain data
                await asyncio.sleep(0.02)
            assert found().keys() == wanted.keys()
            assert found() == wanted

        try:
            await until({"before": ""})
            await client.create(CONFIG_MAPS, config_map(namespace, "new", namespace, key="1"))
            await client.create(CONFIG_MAPS, config_map(namespace, "other", "by-nobody"))
            await until({"before": "", "new": "1"})
            large = "x" * 900_000  # one line of the stream, beyond the usual buffers
            await client.replace(CONFIG_MAPS, config_map(namespace, "new", namespace, key=large))
            await until({"before": "", "new": large})
            live = await client.get(CONFIG_MAPS, namespace, "before")
            assert live is not None
            await client.delete(CONFIG_MAPS, live)
            await until({"new": large})
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    run(cluster, scenario)


def test_a_refused_watch_is_an_error(cluster: Cluster) -> None:
    async def scenario(client: ClusterClient) -> None:
        with pytest.raises(ClusterError) as refused:
            await anext(client.watch(CONFIG_MAPS, "1", labels="a=b=c"))
        assert refused.value.status == 400

    run(cluster, scenario)
