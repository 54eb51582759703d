"""One Pod on a node, from its arrival to its last status: volumes, init containers, containers, deletion."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from devcluster.errors import ApiError
from devcluster.node import failures
from devcluster.node.container import Container
from devcluster.node.environment import Sources
from devcluster.node.files import MountError
from devcluster.node.publisher import StatusPublisher
from devcluster.node.quantities import parse_quantity
from devcluster.node.status import PodFacts, Role, Terminated
from devcluster.node.usage import directory_bytes
from devcluster.node.volumes import ImageVolumeMissingError, PodVolumes

if TYPE_CHECKING:
    from devcluster.node.agent import Node

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)
_USAGE_PERIOD = 0.5


class PodWorker:
    """Plays kubelet for one Pod."""

    def __init__(self, node: Node, item: Object, address: str, release: Callable[[], None]) -> None:
        self.node, self.item = node, item
        metadata, self.spec = item["metadata"], item["spec"]
        self.name, self.namespace, self.uid = metadata["name"], metadata["namespace"], metadata["uid"]
        self.address = node.address if self.spec.get("hostNetwork") else address
        self.hostname = (self.spec.get("hostname") or self.name)[:63].rstrip("-.")
        self.grace = float(self.spec.get("terminationGracePeriodSeconds", 30))
        self.directory: Path = node.work / "pods" / self.uid
        self.directory.mkdir(parents=True, exist_ok=True)
        self.hosts_file = self.directory / "hosts"
        self.volumes = PodVolumes(
            node.api,
            node.settings,
            self.directory / "volumes",
            secret=node.secret,
            config_map=node.config_map,
            sources=self._sources,
        )
        self.containers = [
            *(Container(self, spec, _init_role(spec)) for spec in self.spec.get("initContainers", ())),
            *(Container(self, spec, Role.APP) for spec in self.spec["containers"]),
        ]
        self._release = release
        self._start_time = datetime.now(UTC)
        self._sandbox_ready = False
        self._over: tuple[str, str, str] | None = None
        self._deletion = asyncio.Event()
        self._refresh = asyncio.Event()
        self._gone = False
        self._publisher = StatusPublisher(node, item, self._facts)
        self._pulled: set[str] = set()
        self._helpers: set[asyncio.Task[Any]] = set()

    # What containers ask

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str, *, field: str | None = None) -> None:
        """Write an event about the Pod."""
        self.node.recorder.emit(self.item, kind, reason, message, field=field, host=self.node.name)

    def changed(self) -> None:
        """The status has to be written again."""
        self._publisher.changed()

    def image_trouble(self, reference: str) -> tuple[bool, float]:
        """Whether a pull is to fail, and how many seconds it is to take; a pulled image is there at once."""
        trouble = failures.image_trouble(self.item, self.node.item, reference)
        return trouble.refused, 0.0 if reference in self._pulled else trouble.delay

    def image_pulled(self, reference: str) -> None:
        """A slow pull has been waited for."""
        self._pulled.add(reference)

    def start_trouble(self, container: str) -> bool:
        """Whether the container's command is not to be executable."""
        return failures.annotations_of(self.item).get(failures.START_ERROR) == container

    async def secret(self, name: str) -> Object | None:
        """A Secret of the Pod's namespace."""
        return await self.node.secret(self.namespace, name)

    async def config_map(self, name: str) -> Object | None:
        """A ConfigMap of the Pod's namespace."""
        return await self.node.config_map(self.namespace, name)

    def _sources(self, container: Object) -> Sources:
        return Sources(
            pod=self.item,
            container=container,
            secret=lambda _: None,
            config_map=lambda _: None,
            pod_address=self.address,
            host_address=self.node.address,
            capacity=self.node.capacity,
        )

    # What the agent tells

    def update(self, item: Object) -> None:
        """The Pod has changed in the API."""
        before, self.item = self.item, item
        self._publisher.notice(item)
        for annotation, out_of_memory in ((failures.OOM_KILL, True), (failures.KILL, False)):
            wanted = failures.kill_order(before, item, annotation)
            for container in self.containers:
                if container.name == wanted:
                    container.kill(out_of_memory=out_of_memory)
        order = failures.signal_order(before, item)
        for container in self.containers:
            if order is not None and container.name == order[0]:
                container.signal(order[1])
        metadata = item["metadata"]
        if metadata.get("deletionTimestamp"):
            grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
            if self._deletion.is_set() and grace < self.grace:
                self._later(self._kill_after(grace))
            self.grace = grace
            self._deletion.set()
        if before["metadata"].get("annotations") != metadata.get("annotations") or (
            before["metadata"].get("labels") != metadata.get("labels")
        ):
            self.refresh_volumes()
        if before["metadata"].get("generation") != metadata.get("generation"):
            self.changed()

    def removed(self) -> None:
        """The Pod has vanished from the API, for instance by a forced deletion."""
        self._gone = True
        self.grace = min(self.grace, 2.0)
        if self._deletion.is_set():
            self._later(self._kill_after(self.grace))
        self._deletion.set()

    def refresh_volumes(self) -> None:
        """A Secret or ConfigMap of the namespace, or the Pod's metadata, has changed."""
        self._refresh.set()

    def write_hosts(self, services: str) -> None:
        """Write /etc/hosts in place: containers have this very file mounted."""
        aliases = "".join(
            f"{alias['ip']}\t{' '.join(alias.get('hostnames', ()))}\n" for alias in self.spec.get("hostAliases", ())
        )
        own = f"127.0.0.1\tlocalhost\n{self.address}\t{self.hostname}\n"
        with self.hosts_file.open("a+b") as file:
            content = (own + aliases + services).encode()
            file.seek(0)
            file.truncate()
            file.write(content)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _kill_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for container in self.containers:
            container.kill()

    # The story

    async def run(self) -> None:
        """Live through the Pod's whole life."""
        if self.item["metadata"].get("deletionTimestamp"):
            self._deletion.set()
        self.write_hosts(self.node.service_hosts())
        publisher = asyncio.create_task(self._publisher.run())
        story = asyncio.create_task(self._story())
        deletion = asyncio.create_task(self._deletion.wait())
        deadline = asyncio.create_task(self._deadline())
        usage = asyncio.create_task(self._guard_usage())
        refresher = asyncio.create_task(self._refresh_volumes())
        tasks = (story, deletion, deadline, usage, refresher, publisher)
        try:
            await asyncio.wait((story, deletion), return_when=asyncio.FIRST_COMPLETED)
            if story.done() and story.exception() is not None:
                _log.error("Pod %s/%s", self.namespace, self.name, exc_info=story.exception())
            deadline.cancel()
            await deletion
            await self._stop_containers(self.grace)
            story.cancel()
            publisher.cancel()
            await self._finish()
        finally:
            for container in self.containers:
                container.kill()
            for task in (*tasks, *self._helpers):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release()

    async def _story(self) -> None:
        self.changed()
        broken = failures.refused_device(self.item, self.node.item)
        if broken is not None:
            await asyncio.sleep(1)
            message = (
                f"Pod was rejected: Allocate failed due to requested number of devices unavailable for {broken}. "
                "Requested: 1, Available: 0, which is unexpected"
            )
            self.event("Warning", "UnexpectedAdmissionError", message)
            await self._fail("UnexpectedAdmissionError", message, 0)
            return
        await self._set_up_volumes()
        self._sandbox_ready = True
        self.changed()
        sidecars: list[asyncio.Task[None]] = []
        for container in self.containers:
            if container.role is Role.INIT:
                await container.run()
                state = container.facts.state
                if not isinstance(state, Terminated) or state.exit_code != 0:
                    await self._stop_sidecars(2)
                    return
            elif container.role is Role.SIDECAR:
                sidecars.append(asyncio.create_task(container.run()))
                await container.started.wait()
        apps = [container for container in self.containers if container.role is Role.APP]
        for container in apps:
            container.wait_for("ContainerCreating")
        try:
            async with asyncio.TaskGroup() as group:
                for container in apps:
                    group.create_task(container.run())
            if not self._deletion.is_set():
                await self._stop_sidecars(self.grace)
        finally:
            for sidecar in sidecars:
                sidecar.cancel()
            self.changed()

    async def _set_up_volumes(self) -> None:
        for volume in self.spec.get("volumes", ()):
            wait = 0.25
            while True:
                try:
                    await self.volumes.set_up(self.item, volume)
                    break
                except MountError as problem:
                    message = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {problem}'
                    self.event("Warning", "FailedMount", message)
                except ImageVolumeMissingError as problem:
                    await self.containers[0].puller.failed(str(problem))
                    continue
                except (ApiError, *_UNREACHABLE) as problem:
                    _log.warning("volume %s of %s/%s: %s", volume["name"], self.namespace, self.name, problem)
                self._refresh.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._refresh.wait(), wait)
                wait = min(wait * 2, 10.0)

    async def _refresh_volumes(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refresh.wait(), min(60.0, self.volumes.next_renewal() + 0.5))
            if self._sandbox_ready:
                self._refresh.clear()
                await self.volumes.refresh(self.item)
            else:
                await asyncio.sleep(0.2)

    async def _deadline(self) -> None:
        seconds = self.spec.get("activeDeadlineSeconds")
        if seconds is None:
            return
        await asyncio.sleep(seconds)
        message = "Pod was active on the node longer than the specified deadline"
        self.event("Normal", "DeadlineExceeded", message)
        await self._fail("DeadlineExceeded", message, self.grace)

    async def _guard_usage(self) -> None:
        """Evict the Pod when a volume holds more than its size limit, as a kubelet does."""
        limits = {
            volume["name"]: volume["emptyDir"]["sizeLimit"]
            for volume in self.spec.get("volumes", ())
            if "sizeLimit" in volume.get("emptyDir", {}) and volume["emptyDir"].get("medium") != "Memory"
        }
        while limits and not self._deletion.is_set():
            await asyncio.sleep(_USAGE_PERIOD)
            for name, limit in limits.items():
                volume = self.volumes.ready.get(name)
                if volume and await asyncio.to_thread(directory_bytes, volume.path) > parse_quantity(limit):
                    message = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
                    self.event("Warning", "Evicted", message)
                    await self._fail("Evicted", message, 1.0)
                    return

    async def _fail(self, reason: str, message: str, grace: float) -> None:
        self._over = ("Failed", reason, message)
        await self._stop_containers(grace)
        self.changed()

    # The end

    async def _stop_containers(self, grace: float) -> None:
        began = time.monotonic()
        await asyncio.gather(*(c.stop(grace) for c in self.containers if c.role is not Role.SIDECAR))
        await self._stop_sidecars(max(0.0, grace - (time.monotonic() - began)))

    async def _stop_sidecars(self, grace: float) -> None:
        for container in reversed(self.containers):
            if container.role is Role.SIDECAR:
                await container.stop(grace)

    async def _finish(self) -> None:
        """Write the last status, then take the Pod out of the API."""
        await asyncio.sleep(0)  # the containers' own last steps
        order = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while not self._gone:
            try:
                await self.node.awake()
                await self._publisher.publish()
                await self.node.api.delete(self._publisher.pod_path, order)
                break
            except ApiError as problem:
                if problem.status in (404, 409):
                    break
                _log.warning("Pod %s/%s: %s", self.namespace, self.name, problem)
            except _UNREACHABLE:
                pass
            await asyncio.sleep(0.3)
        for name in ("volumes", "hosts", "kubeconfig"):
            target = self.directory / name
            if target.is_dir():
                await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)

    # Status

    def _facts(self) -> PodFacts:
        over, reason, message = self._over or (None, "", "")
        return PodFacts(
            containers=[container.facts for container in self.containers],
            start_time=self._start_time,
            sandbox_ready=self._sandbox_ready,
            pod_address=self.address if self._sandbox_ready else None,
            host_address=self.node.address,
            over=over,
            reason=reason,
            message=message,
        )


def _init_role(spec: Object) -> Role:
    return Role.SIDECAR if spec.get("restartPolicy") == "Always" else Role.INIT
