"""Plays kube-proxy, the EndpointSlice controller and cluster DNS for every Service of the cluster."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp

from devcluster.errors import ApiError
from devcluster.network.backends import Backend, Lingering, Target, backends, selects, targets
from devcluster.network.proxy import Proxy
from devcluster.network.slices import slice_manifest, slice_name
from devcluster.node.api import Api, Event, Informer, Key, key_of

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_KUBERNETES = ("default", "kubernetes")
"""The API server's own Service; on port 443, so that only some users may listen for it."""
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


_Place = tuple[str, int, str]
"""Address and port that are listened on, and the Service port's name."""


class ServiceNetwork:
    """Keeps a listener on every Service port and an EndpointSlice for every Service with a selector."""

    def __init__(
        self, api: Api, pods: Informer, *, delay: float, node_address: str, hosts_changed: Callable[[], None]
    ) -> None:
        self._api, self._pods, self._delay = api, pods, delay
        self._node_address = node_address
        self._hosts_changed = hosts_changed
        self.services = Informer(api, "/api/v1/services")
        self._backends: dict[Key, list[Backend]] = {}
        self._proxies: dict[Key, dict[_Place, tuple[Proxy, Lingering]]] = {}
        self._written: dict[Key, Object] = {}
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        self.services.listen(self._service_changed)
        self._pods.listen(self._pod_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.services.run())
                group.create_task(self._work())
        finally:
            for places in self._proxies.values():
                for proxy, _ in places.values():
                    proxy.close()

    def _service_changed(self, event: Event, item: Object) -> None:
        self._mark(key_of(item))
        if event != "MODIFIED":
            self._hosts_changed()

    def _pod_changed(self, _event: Event, item: Object) -> None:
        metadata = item["metadata"]
        for key, service in self.services.items.items():
            if key[0] != metadata["namespace"]:
                continue
            selector = service["spec"].get("selector")
            has = any(backend.uid == metadata["uid"] for backend in self._backends.get(key, ()))
            if has or (selector and selects(selector, item)):
                self._recompute(key)
                self._mark(key)

    def _recompute(self, key: Key) -> None:
        service = self.services.items.get(key)
        before = self._backends.pop(key, None)
        if service is None:
            return
        self._backends[key] = backends(service, self._pods.items.values())
        for (_, _, port_name), (_, lingering) in self._proxies.get(key, {}).items():
            lingering.update(self._targets(key, port_name), time.monotonic())
        if service["spec"].get("clusterIP") == "None" and self._backends[key] != before:
            self._hosts_changed()  # the name of a headless Service stands for its Pods

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            failed = set()
            while self._dirty:
                key = self._dirty.pop()
                self._recompute(key)
                await self._listen(key)
                try:
                    await self._write_slice(key)
                except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                    _log.info("slice of %s/%s: %s", *key, problem)
                    failed.add(key)
            if failed:
                await asyncio.sleep(0.3)
                self._dirty |= failed
                self._wake.set()

    # kube-proxy

    def _targets(self, key: Key, port_name: str) -> list[Target]:
        if key == _KUBERNETES:
            host, _, port = self._api.server.removeprefix("https://").rpartition(":")
            return [(host, int(port))]
        return targets(self._backends.get(key, ()), port_name)

    async def _listen(self, key: Key) -> None:
        service = self.services.items.get(key)
        wanted = dict(self._listeners(service)) if service is not None else {}
        places = {(address, port, name) for (address, port), name in wanted.items()}
        open_now = self._proxies.setdefault(key, {})
        for place in open_now.keys() - places:
            open_now.pop(place)[0].close()
        if service is None:
            del self._proxies[key]
        for address, port, name in places - open_now.keys():
            lingering = Lingering(self._delay)
            lingering.update(self._targets(key, name), time.monotonic())
            proxy = Proxy(address, port, functools.partial(_now, lingering))
            try:
                await proxy.start()
            except OSError as problem:
                level = logging.DEBUG if key == _KUBERNETES else logging.WARNING
                _log.log(level, "Service %s/%s: cannot listen on %s:%s: %s", *key, address, port, problem.strerror)
                continue
            open_now[address, port, name] = proxy, lingering

    def _listeners(self, service: Object) -> Iterator[tuple[tuple[str, int], str]]:
        spec = service["spec"]
        if spec.get("type") == "ExternalName" or not (spec.get("selector") or key_of(service) == _KUBERNETES):
            return
        for port in spec.get("ports", ()):
            if port.get("protocol", "TCP") != "TCP":
                continue
            name = port.get("name", "")
            if spec.get("clusterIP") not in (None, "", "None"):
                yield (spec["clusterIP"], port["port"]), name
            if port.get("nodePort"):
                yield (self._node_address, port["nodePort"]), name

    # EndpointSlices

    async def _write_slice(self, key: Key) -> None:
        service = self.services.items.get(key)
        if service is None or not service["spec"].get("selector"):
            self._written.pop(key, None)  # the garbage collector takes the slice with its Service
            return
        manifest = slice_manifest(service, self._backends.get(key, []))
        if self._written.get(key) == manifest:
            return
        path = f"{_SLICES.format(namespace=key[0])}/{slice_name(key[1])}"
        await self._api.patch(path, manifest, "apply", parameters={"fieldManager": "devcluster", "force": "true"})
        self._written[key] = manifest

    # Names

    def services_of(self, namespace: str) -> list[Object]:
        """The Services of a namespace."""
        return [service for key, service in sorted(self.services.items.items()) if key[0] == namespace]

    def hosts(self) -> str:
        """Lines of /etc/hosts with the names that cluster DNS gives Services."""
        lines = []
        for (namespace, name), service in sorted(self.services.items.items()):
            names = [f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
            address = service["spec"].get("clusterIP")
            if address == "None":
                ready = [b.address for b in self._backends.get((namespace, name), ()) if b.ready]
            else:
                ready = [address] if address else []
            lines += [f"{one}\t{' '.join(names)}\n" for one in ready]
        return "".join(lines)


def _now(lingering: Lingering) -> list[Target]:
    return lingering.at(time.monotonic())
