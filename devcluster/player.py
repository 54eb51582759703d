"""Nodes whose Pods are only played: no process runs, a Pod that is scheduled there becomes ready and answers.

For what needs many Pods rather than real ones. The API server, the scheduler and the controllers are real; a Pod's
status, and what it answers over HTTP at its own loopback address, come from here. `python -m devcluster.player` plays
until it is stopped; `Player` does so inside a program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from devcluster.control.certificates import KeyPair
from devcluster.errors import ApiError
from devcluster.node.api import Api, Event, Informer, Object
from devcluster.node.registration import heartbeat, node_manifest
from devcluster.node.status import timestamp
from devcluster.settings import ClusterSettings
from devcluster.state import read_state

PORT = 8000
HEARTBEAT_SECONDS = 5.0
NODE_LABEL = "devcluster/played"
"""On every played node; a Pod gets there by a node selector."""
PODS_PER_NODE = 1000


def manifest(model: str) -> Object:
    """What `/v1/manifest` of a bundled runtime says, as far as the operator reads it. Pure."""
    return {
        "object": "model.manifest",
        "model": {
            "id": model,
            "revision": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            "fingerprint": "sha256:" + hashlib.sha256(model.encode()).hexdigest(),
            "dimensions": 384,
            "supported_dimensions": [384],
            "max_input_tokens": 256,
            "pooling": "Mean",
            "modalities": ["text"],
            "precision": "Float32",
        },
        "runtime": {"version": "0.1.0"},
    }


def pod_status(pod: Object, address: str, moment: datetime) -> Object:
    """The status of a Pod that runs and is ready. Pure."""
    now = timestamp(moment)
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": f"played://{container['image']}",
            "containerID": f"played://{pod['metadata']['uid']}/{container['name']}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for container in pod["spec"]["containers"]
    ]
    kinds = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": containers,
    }


def network_of(server: str) -> str:
    """The two first bytes of played Pods' addresses, beside those that cluster number N has already. Pure."""
    control_plane = (urlsplit(server).hostname or "").split(".")
    return f"127.{int(control_plane[1]) + 64}"


@dataclass
class Player:
    """Plays the Pods of its nodes while the context lasts.

    `load` is asked what the Pod of a name says of itself: its utilization, and the tokens it has embedded so far.
    """

    cluster: Path
    """State directory of the devcluster."""
    nodes: int = 1
    load: Callable[[str], tuple[float, float]] = lambda pod: (0.0, 0.0)
    hang: set[str] = field(default_factory=set)
    """Names of Pods that accept connections and never answer."""
    addresses: dict[str, str] = field(default_factory=dict, init=False)
    """Of the Pods that are played now, by uid."""
    _names: dict[str, str] = field(default_factory=dict, init=False)
    _count: int = field(default=0, init=False)
    _network: str = field(default="", init=False)
    _api: Api = field(init=False)
    _runner: web.AppRunner = field(init=False)

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[Player]:
        """Register the nodes, play, and take the nodes away again."""
        state = read_state(self.cluster)
        if state is None:
            raise ApiError(0, "NotRunning", f"no cluster is up in {self.cluster}")
        pki = self.cluster / "pki"
        self._network = network_of(state.server)
        names = [f"played-{index}" for index in range(self.nodes)]
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)
        await runner.setup()
        self._runner = runner
        agent = KeyPair(pki / "agent.crt", pki / "agent.key")
        async with Api(state.server, pki / "cluster-ca.crt", agent) as api:
            self._api = api
            for name in names:
                await self._register(name)
            informers = [Informer(api, f"/api/v1/pods?fieldSelector=spec.nodeName={name}") for name in names]
            tasks = [asyncio.create_task(self._beat(names))]
            work: set[asyncio.Task[None]] = set()

            def changed(event: Event, pod: Object) -> None:
                task = asyncio.create_task(self._play(event, pod))
                work.add(task)
                task.add_done_callback(work.discard)

            for informer in informers:
                informer.listen(changed)
                tasks.append(asyncio.create_task(informer.run()))
            try:
                yield self
            finally:
                for task in (*tasks, *work):
                    task.cancel()
                await asyncio.gather(*tasks, *work, return_exceptions=True)
                for name in names:
                    with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):
                        await api.delete(f"/api/v1/nodes/{name}")
                for site in tuple(runner.sites):
                    await site.stop()
                # Who was being accepted in this moment becomes a connection first, which the clean-up then ends.
                await asyncio.sleep(0.05)
                await runner.cleanup()

    async def _register(self, name: str) -> None:
        settings = ClusterSettings(
            cpus_per_node=1000, memory_per_node="4000Gi", gpus_per_node=PODS_PER_NODE, node_labels={NODE_LABEL: "true"}
        )
        node = node_manifest(settings, name, "127.0.0.1", 10250)
        for part in ("capacity", "allocatable"):
            node["status"][part]["pods"] = str(PODS_PER_NODE)
        with contextlib.suppress(ApiError):
            await self._api.create("/api/v1/nodes", node)
        await self._api.patch(f"/api/v1/nodes/{name}/status", {"status": node["status"]}, "strategic")

    async def _beat(self, names: list[str]) -> None:
        while True:
            for name in names:
                with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):
                    await heartbeat(self._api, name, 4 * HEARTBEAT_SECONDS)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _play(self, event: Event, pod: Object) -> None:
        metadata = pod["metadata"]
        uid, path = metadata["uid"], f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if event == "DELETED":
            self._end(uid)
            return
        try:
            if "deletionTimestamp" in metadata:
                await self._api.delete(path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
            elif (pod.get("status") or {}).get("phase") == "Pending" and uid not in self.addresses:
                address = await self._begin(uid, metadata["name"])
                await self._api.patch(f"{path}/status", {"status": pod_status(pod, address, datetime.now(UTC))})
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
            if not isinstance(problem, ApiError) or problem.status not in (404, 409):
                raise

    async def _begin(self, uid: str, name: str) -> str:
        """Listen at an address of the Pod's own."""
        self._count += 1
        address = f"{self._network}.{self._count // 250}.{self._count % 250 + 1}"
        self.addresses[uid] = address
        self._names[address] = name
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        await web.SockSite(self._runner, listener, backlog=16).start()
        return address

    def _end(self, uid: str) -> None:
        """The address is not used again; its socket stays open until the player ends."""
        self._names.pop(self.addresses.pop(uid, ""), None)

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/v1/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        address = request.transport.get_extra_info("sockname")[0] if request.transport is not None else ""
        if self._names.get(address) in self.hang:
            await asyncio.sleep(3600)
        match request.match_info["path"]:
            case "health/ready":
                return _json({"object": "health.response", "message": "ready", "ready": True})
            case "manifest":
                return _json(manifest("sentence-transformers/all-MiniLM-L6-v2"))
            case "metrics":
                utilization, tokens = self.load(self._names.get(address, ""))
                text = f"embedding_utilization {utilization}\nembedding_tokens_total {tokens}\n"
                return web.Response(text=text + "embedding_queue_tokens 0\n")
            case _:
                return web.Response(status=404)


def _json(body: Any) -> web.Response:
    return web.Response(text=json.dumps(body), content_type="application/json")


async def _main(cluster: Path, nodes: int) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with Player(cluster, nodes).playing():
        print("playing", flush=True)
        await stopping.wait()


def main() -> None:
    """Entry point of `python -m devcluster.player`."""
    parser = argparse.ArgumentParser(prog="python -m devcluster.player", description=__doc__)
    parser.add_argument("directory", type=Path, help="state directory of the cluster")
    parser.add_argument("--nodes", type=int, default=1, help=f"played nodes, of {PODS_PER_NODE} Pods each [1]")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.directory, arguments.nodes))


if __name__ == "__main__":
    main()
