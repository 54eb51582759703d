"""The node agent: registers nodes, keeps them alive, and runs a worker for every Pod that is scheduled to them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from devcluster.control.addresses import POD_ADDRESSES, Addresses
from devcluster.errors import ApiError
from devcluster.node import devices, failures
from devcluster.node.api import Api, Event, Informer, Key, key_of
from devcluster.node.events import Recorder
from devcluster.node.pod import PodWorker
from devcluster.node.registration import heartbeat, node_manifest
from devcluster.node.service_links import service_variables
from devcluster.paths import REPOSITORY
from devcluster.settings import ClusterSettings

Object = dict[str, Any]
_log = logging.getLogger(__name__)


class Node:
    """What the Pods of one node share."""

    def __init__(self, agent: Agent, index: int) -> None:
        self._agent = agent
        self.index = index
        self.name = f"{agent.settings.name}-node-{index + 1}"
        self.address = agent.addresses.node(index)
        self.settings, self.api, self.recorder = agent.settings, agent.api, agent.recorder
        self.isolate, self.work, self.keep = agent.isolate, agent.work, agent.keep
        manifest = node_manifest(agent.settings, self.name, self.address, agent.kubelet_port)
        self.manifest = manifest
        self.capacity: dict[str, str] = manifest["status"]["capacity"]
        self._awake = asyncio.Event()
        self._awake.set()

    @property
    def item(self) -> Object | None:
        """The Node object as the API has it."""
        return self._agent.nodes.items.get(("", self.name))

    def check_lost(self) -> bool:
        """Fall silent, or wake up again, as the node's annotation says; True when it has just woken up."""
        if failures.annotations_of(self.item).get(failures.LOST) == "true":
            self._awake.clear()
            return False
        woken = self.lost
        self._awake.set()
        return woken

    @property
    def lost(self) -> bool:
        """Whether the node is silent."""
        return not self._awake.is_set()

    async def awake(self) -> None:
        """Wait while the node is silent."""
        await self._awake.wait()

    async def secret(self, namespace: str, name: str) -> Object | None:
        """A Secret, by the cache or, when it is not there, by asking."""
        return await self._agent.find("secrets", namespace, name)

    async def config_map(self, namespace: str, name: str) -> Object | None:
        """A ConfigMap, by the cache or, when it is not there, by asking."""
        return await self._agent.find("configmaps", namespace, name)

    def service_hosts(self) -> str:
        """The lines of /etc/hosts that stand for cluster DNS."""
        return self._agent.service_hosts()

    def platform_variables(self, hostname: str, namespace: str, *, links: bool) -> dict[str, str]:
        """What a container learns from its node: its name, where the API server is, and with `links` the Services.

        On a real node KUBERNETES_SERVICE_HOST is a ClusterIP with port 443; listening there needs root, so it is the
        API server's own address here.
        """
        host, _, port = self.api.server.removeprefix("https://").rpartition(":")
        own = {"name": "https", "port": int(port)}
        kubernetes = {"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": host, "ports": [own]}}
        linked = [s for s in self._agent.services(namespace) if s["metadata"]["name"] != "kubernetes"] if links else []
        return {"HOSTNAME": hostname, **service_variables([*linked, kubernetes])}


class Agent:
    """Plays the kubelets of all nodes of a cluster."""

    def __init__(
        self,
        api: Api,
        settings: ClusterSettings,
        addresses: Addresses,
        work: Path,
        *,
        isolate: bool,
        kubelet_port: int,
        pods: Informer,
        service_hosts: Callable[[], str],
        services: Callable[[str], list[Object]],
    ) -> None:
        self.api, self.settings, self.addresses, self.work = api, settings, addresses, work
        self.isolate, self.kubelet_port, self.pods = isolate, kubelet_port, pods
        self.service_hosts, self.services = service_hosts, services
        self.keep = sorted({str(REPOSITORY), sys.prefix, sys.base_prefix})
        self.recorder = Recorder(api, "kubelet")
        self.nodes = Informer(api, "/api/v1/nodes")
        self._caches = {kind: Informer(api, f"/api/v1/{kind}") for kind in ("secrets", "configmaps")}
        self.workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._free = deque(range(POD_ADDRESSES))
        self._nodes = {node.name: node for node in (Node(self, index) for index in range(settings.nodes))}

    @property
    def members(self) -> list[Node]:
        """The nodes that the agent plays."""
        return list(self._nodes.values())

    async def run(self) -> None:
        """Register the nodes and serve their Pods until cancelled; then every container is killed."""
        self.pods.listen(self._pod_changed)
        self.nodes.listen(lambda _event, item: self._node_changed(key_of(item)))
        for informer in self._caches.values():
            informer.listen(self._file_source_changed)
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._nodes.values():
                    group.create_task(self._keep_alive(node))
                group.create_task(self.recorder.run())
                group.create_task(self.nodes.run())
                for informer in self._caches.values():
                    group.create_task(informer.run())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """A Secret or ConfigMap; None when there is none."""
        cached = self._caches[kind].items.get((namespace, name))
        if cached is not None:
            return cached
        try:
            return await self.api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise

    def refresh_hosts(self) -> None:
        """Services have changed: tell every Pod's /etc/hosts."""
        lines = self.service_hosts()
        for worker in self.workers.values():
            if worker.hosts_file.exists():
                worker.write_hosts(lines)

    async def _keep_alive(self, node: Node) -> None:
        await self._until_done(lambda: self._register(node))
        period = min(10.0, self.settings.node_grace / 4)
        while True:
            await node.awake()
            try:
                await heartbeat(self.api, node.name, period * 4)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.debug("heartbeat of %s: %s", node.name, problem)
            await asyncio.sleep(period)

    async def _register(self, node: Node) -> None:
        await self._ensure("/api/v1/nodes", node.manifest)
        await self.api.patch(f"/api/v1/nodes/{node.name}/status", {"status": node.manifest["status"]}, "strategic")
        await heartbeat(self.api, node.name, self.settings.node_grace)
        if self.settings.gpus_per_node:
            item = await self.api.get(f"/api/v1/nodes/{node.name}")
            await self._ensure(devices.CLASSES, devices.device_class())
            await self._ensure(devices.SLICES, devices.resource_slice(item, self.settings.gpus_per_node))
        _log.info("node %s is registered", node.name)

    async def _ensure(self, path: str, manifest: Object) -> None:
        try:
            await self.api.create(path, manifest)
        except ApiError as problem:
            if problem.reason != "AlreadyExists":
                raise

    async def _until_done(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
                return
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.info("%s", problem)
                await asyncio.sleep(0.1)

    def _node_changed(self, key: Key) -> None:
        node = self._nodes.get(key[1])
        if node is not None and node.check_lost():
            self._catch_up(node)

    def _catch_up(self, node: Node) -> None:
        """Learn what has happened to the node's Pods while it was silent."""
        present = {item["metadata"]["uid"] for item in self.pods.items.values()}
        for worker in list(self.workers.values()):
            if worker.node is node and worker.uid not in present:
                worker.removed()
        for item in list(self.pods.items.values()):
            if item["spec"].get("nodeName") == node.name:
                self._pod_changed("MODIFIED", item)

    def _file_source_changed(self, _event: Event, item: Object) -> None:
        namespace = item["metadata"]["namespace"]
        for worker in self.workers.values():
            if worker.namespace == namespace:
                worker.refresh_volumes()

    def _pod_changed(self, event: Event, item: Object) -> None:
        node = self._nodes.get(item["spec"].get("nodeName", ""))
        if node is None or node.lost:
            return
        worker = self.workers.get(item["metadata"]["uid"])
        if event == "DELETED":
            if worker is not None:
                worker.removed()
        elif worker is not None:
            worker.update(item)
        elif item.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._start(node, item)

    def _start(self, node: Node, item: Object) -> None:
        number = self._free.popleft()
        worker = PodWorker(node, item, self.addresses.pod(number), lambda: self._free.append(number))
        self.workers[worker.uid] = worker
        task = asyncio.create_task(worker.run())
        self._tasks[worker.uid] = task
        task.add_done_callback(lambda done: self._ended(worker, done))

    def _ended(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        self.workers.pop(worker.uid, None)
        self._tasks.pop(worker.uid, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("worker of Pod %s/%s failed", worker.namespace, worker.name, exc_info=task.exception())
