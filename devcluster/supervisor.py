"""The process of a running cluster: control plane, node agent, Services. Started by `devcluster.keeper`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from devcluster.control.addresses import claim_addresses, free_port
from devcluster.control.commands import Layout
from devcluster.control.plane import ControlPlane, Credentials, prepare
from devcluster.errors import ClusterStartError, DevclusterError
from devcluster.keeper import kill_descendants
from devcluster.network.services import ServiceNetwork
from devcluster.node.agent import Agent
from devcluster.node.api import Api, Informer
from devcluster.node.claims import ClaimProvisioner
from devcluster.node.kubelet_server import KubeletServer
from devcluster.node.process import isolation_works
from devcluster.orphans import adopt_orphans, die_with_parent, reap_orphans
from devcluster.settings import ClusterSettings
from devcluster.state import ComponentState, State, write_state

_log = logging.getLogger("devcluster")


class Supervisor:
    """Brings a cluster up, keeps it up, takes it down, and writes its state for others to read."""

    def __init__(self, directory: Path, keeper: int) -> None:
        self._directory, self._keeper = directory, keeper
        self._state = State(phase="starting", pid=os.getpid())
        self._plane: ControlPlane | None = None
        self._began = time.monotonic()

    def _note(self, **changes: object) -> None:
        components = {}
        if self._plane is not None:
            components = {
                name: ComponentState(pid=component.pid, restarts=component.restarts)
                for name, component in self._plane.components.items()
            }
        self._state = self._state.model_copy(update={**changes, "components": components})
        write_state(self._directory, self._state)

    async def run(self) -> None:
        """Run until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        adopt_orphans()
        die_with_parent(signal.SIGTERM, self._keeper)
        serving = asyncio.create_task(self._serve())
        reaper = asyncio.create_task(reap_orphans())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and (problem := serving.exception()) is not None:
            message = str(problem) if isinstance(problem, DevclusterError) else f"{type(problem).__name__}: {problem}"
            _log.error("failed", exc_info=problem)
            self._note(phase="failed", message=message)
        else:
            self._note(phase="stopping", message="")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        if self._plane is not None:
            await self._plane.stop()
        reaper.cancel()
        kill_descendants()

    async def _serve(self) -> None:
        chosen = json.loads((self._directory / "settings.json").read_text())
        settings = ClusterSettings.model_validate(chosen["settings"])
        binaries = {name: Path(path) for name, path in chosen["binaries"].items()}
        addresses, self._claim = claim_addresses()
        work = self._directory / "node"
        work.mkdir(exist_ok=True)
        possible = settings.isolate is not False and await isolation_works(work)
        if settings.isolate and not possible:
            raise ClusterStartError(
                "this machine refuses user namespaces, so containers cannot be isolated: leave --isolate out"
            )
        isolate = possible
        layout, credentials = prepare(settings, addresses, self._directory, binaries)
        self._plane = ControlPlane(layout, credentials.agent, self._note)
        self._note(message="starting etcd and the API server", isolated=isolate, server=layout.api_server)
        await self._plane.start()
        self._note(message="waiting for the nodes")
        async with Api(layout.api_server, layout.keys.authority, credentials.agent) as api:
            await self._serve_nodes(api, layout, credentials, work, isolate)

    async def _serve_nodes(self, api: Api, layout: Layout, credentials: Credentials, work: Path, isolate: bool) -> None:
        settings, addresses = layout.settings, layout.addresses
        kubelet_port = free_port(addresses.node(0), 10250)
        pods = Informer(api, "/api/v1/pods")
        agent: Agent
        network = ServiceNetwork(
            api,
            pods,
            delay=settings.endpoint_delay,
            node_address=addresses.node(0),
            hosts_changed=lambda: agent.refresh_hosts(),
        )
        agent = Agent(
            api,
            settings,
            addresses,
            work,
            isolate=isolate,
            kubelet_port=kubelet_port,
            pods=pods,
            service_hosts=network.hosts,
            services=network.services_of,
        )
        kubelet = KubeletServer(agent.workers, work, credentials.kubelet_server, layout.keys.authority)
        await kubelet.start([addresses.node(index) for index in range(settings.nodes)], kubelet_port)
        claims = ClaimProvisioner(api, settings.name, self._directory / "persistent-volumes")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.run())
                group.create_task(network.run())
                group.create_task(pods.run())
                group.create_task(claims.run())
                await self._until_nodes_ready(agent, settings)
                took = time.monotonic() - self._began
                self._note(phase="ready", message="", nodes=[node.name for node in agent.members], took=round(took, 2))
                _log.info("ready after %.1f s", took)
        finally:
            await kubelet.stop()

    async def _until_nodes_ready(self, agent: Agent, settings: ClusterSettings) -> None:
        while True:
            ready = [item for item in agent.nodes.items.values() if _node_ready(item)]
            if len(ready) >= settings.nodes:
                return
            await asyncio.sleep(0.03)


def _node_ready(item: dict[str, object]) -> bool:
    status, spec = item.get("status"), item.get("spec")
    assert isinstance(status, dict)
    assert isinstance(spec, dict)
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    return ready and not spec.get("taints")


def main() -> None:
    """Run the cluster whose state directory is the first argument; the second is the keeper's process."""
    directory = Path(sys.argv[1])
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=directory / "logs" / "agent.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(Supervisor(directory, int(sys.argv[2])).run())


if __name__ == "__main__":
    main()
