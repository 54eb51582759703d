"""The control plane: etcd, API server, controllers, scheduler, with the keys they need."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from devcluster.control import commands
from devcluster.control.addresses import Addresses, free_port
from devcluster.control.certificates import Authority, KeyPair, write_signing_key
from devcluster.control.commands import Keys, Layout
from devcluster.control.kubeconfig import write_kubeconfig
from devcluster.control.processes import Component, tail
from devcluster.errors import ClusterStartError
from devcluster.settings import ClusterSettings

_START_TIMEOUT = 90.0


@dataclass(frozen=True)
class Credentials:
    """What the node agent needs beside the control plane's own keys."""

    agent: KeyPair
    kubelet_server: KeyPair


def prepare(
    settings: ClusterSettings, addresses: Addresses, directory: Path, binaries: dict[str, Path]
) -> tuple[Layout, Credentials]:
    """Write keys, certificates, kubeconfigs and the audit policy below `directory`."""
    pki = directory / "pki"
    for part in (pki, directory / "logs"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, front_proxy = Authority(pki, "cluster-ca"), Authority(pki, "front-proxy-ca")
    keys = Keys(
        authority=authority.path,
        front_proxy_authority=front_proxy.path,
        api_server=authority.issue(
            "kube-apiserver",
            "kube-apiserver",
            names=[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
            addresses=["127.0.0.1", addresses.control_plane, addresses.kubernetes_service],
        ),
        front_proxy=front_proxy.issue("front-proxy-client", "front-proxy-client"),
        kubelet_client=authority.issue("kubelet-client", "kube-apiserver", organizations=["system:masters"]),
        service_accounts=write_signing_key(pki),
    )
    ports = {
        name: free_port(addresses.control_plane, preferred) for name, preferred in commands.PREFERRED_PORTS.items()
    }
    layout = Layout(settings, addresses, directory, binaries, keys, ports)
    (directory / "audit-policy.yaml").write_text(commands.AUDIT_POLICY)
    clients = {
        "kubeconfig": ("devcluster-admin", settings.name),
        "kube-controller-manager.kubeconfig": ("system:kube-controller-manager", settings.name),
        "kube-scheduler.kubeconfig": ("system:kube-scheduler", settings.name),
    }
    for file, (user, cluster) in clients.items():
        pair = authority.issue(user.replace(":", "-"), user, organizations=["system:masters"])
        write_kubeconfig(
            directory / file, cluster=cluster, server=layout.api_server, authority=authority.path, client=pair
        )
    credentials = Credentials(
        agent=authority.issue("agent", "devcluster-agent", organizations=["system:masters"]),
        kubelet_server=authority.issue(
            "kubelet",
            "devcluster-kubelet",
            names=["localhost"],
            addresses=[addresses.node(index) for index in range(settings.nodes)],
        ),
    )
    return layout, credentials


class ControlPlane:
    """The four programs, started in order and stopped in reverse."""

    def __init__(self, layout: Layout, client: KeyPair, changed: Callable[[], None]) -> None:
        self._layout = layout
        self._client = client
        directory = layout.directory
        command_lines = {
            "etcd": commands.etcd(layout),
            "kube-apiserver": commands.api_server(layout),
            "kube-controller-manager": commands.controller_manager(
                layout, directory / "kube-controller-manager.kubeconfig"
            ),
            "kube-scheduler": commands.scheduler(layout, directory / "kube-scheduler.kubeconfig"),
        }
        self.components = {
            name: Component(name, command, directory, changed) for name, command in command_lines.items()
        }

    async def start(self) -> None:
        """Return when the API server is ready; the controllers and the scheduler have been started then.

        Raises:
            ClusterStartError: a program ended or was not ready in time; the message has the end of its log.
        """
        etcd, server = self.components["etcd"], self.components["kube-apiserver"]
        await etcd.start()
        async with aiohttp.ClientSession() as session:
            await self._wait(etcd, lambda: _ok(session, f"{self._layout.etcd}/health"))
        await server.start()
        context = ssl.create_default_context(cafile=str(self._layout.keys.authority))
        context.load_cert_chain(self._client.certificate, self._client.key)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            await self._wait(server, lambda: _ok(session, f"{self._layout.api_server}/readyz"))
        await asyncio.gather(
            self.components["kube-controller-manager"].start(), self.components["kube-scheduler"].start()
        )

    async def _wait(self, component: Component, ready: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not await ready():
            if component.restarts > 2:
                raise ClusterStartError(f"{component.name} does not start; its log ends with:\n{tail(component.log)}")
            if time.monotonic() > deadline:
                raise ClusterStartError(
                    f"{component.name} is not ready after {_START_TIMEOUT:.0f} s; its log ends with:\n"
                    f"{tail(component.log)}"
                )
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop everything; the API server goes before etcd."""
        await asyncio.gather(
            self.components["kube-controller-manager"].stop(1), self.components["kube-scheduler"].stop(1)
        )
        await self.components["kube-apiserver"].stop(2)
        await self.components["etcd"].stop(2)


async def _ok(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
