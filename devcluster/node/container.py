"""One container of a Pod, over all its runs: pull, configure, start, probe, restart, stop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from devcluster.errors import ApiError
from devcluster.node.backoff import BackOff
from devcluster.node.environment import ConfigError
from devcluster.node.handlers import HandlerError, run_handler
from devcluster.node.images import image_id
from devcluster.node.launch import launch_spec
from devcluster.node.probes import Kind, Prober
from devcluster.node.process import ContainerProcess
from devcluster.node.pulling import ImagePuller
from devcluster.node.quantities import parse_quantity
from devcluster.node.status import ContainerFacts, Role, Running, Terminated, Waiting
from devcluster.node.usage import memory_bytes
from devcluster.sandboxed import StartError
from devcluster.settings import Image

if TYPE_CHECKING:
    from devcluster.node.pod import PodWorker

Object = dict[str, Any]
_log = logging.getLogger(__name__)

_MESSAGE_LIMIT = 4096
_FALLBACK_BYTES, _FALLBACK_LINES = 2048, 80
_MEMORY_PERIOD = 0.2


class _StoppedError(Exception):
    """The Pod is being stopped; the container is not to be started (again)."""


class Container:
    """Keeps one container running as its Pod's restart policy asks."""

    def __init__(self, pod: PodWorker, spec: Object, role: Role) -> None:
        self.pod, self.spec, self.role = pod, spec, role
        first = "PodInitializing" if role is Role.APP and pod.spec.get("initContainers") else "ContainerCreating"
        self.facts = ContainerFacts(name=spec["name"], image=spec["image"], role=role, state=Waiting(first))
        self.directory: Path = pod.directory / "containers" / spec["name"]
        self.started = asyncio.Event()
        self._stop = asyncio.Event()
        self._process: ContainerProcess | None = None
        self._end: asyncio.Task[int] | None = None
        self._restarts = BackOff(pod.node.settings.crash_back_off)
        self.puller = ImagePuller(self)
        self._oom_killed = False
        self._killer: asyncio.Task[None] | None = None

    # What others see

    @property
    def name(self) -> str:
        """The container's name."""
        return self.facts.name

    def log(self, attempt: int) -> Path:
        """The log of the run after `attempt` restarts."""
        return self.directory / f"{attempt}.log"

    def set(self, **changes: Any) -> None:
        """Change facts, and have the Pod's status written."""
        self.facts = replace(self.facts, **changes)
        self.pod.changed()

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Write an event about the container."""
        part = "containers" if self.role is Role.APP else "initContainers"
        self.pod.event(kind, reason, message, field=f"spec.{part}{{{self.name}}}")

    def wait_for(self, reason: str) -> None:
        """Show why the container is not being started yet; for states before the first start."""
        if isinstance(self.facts.state, Waiting) and self.facts.last is None:
            self.set(state=Waiting(reason))

    # Running

    async def run(self) -> None:
        """Run the container until it is over for good: completed, failed without restart, or stopped."""
        try:
            while await self._once():
                pass
        except _StoppedError:
            return

    async def _once(self) -> bool:
        """One run, from pull to exit; whether another has to follow."""
        image = await self.puller.pull()
        began = time.monotonic()
        try:
            process = await self._start(image)
        except StartError as problem:
            self._start_failed(str(problem))
        else:
            await self._live(process)
        if self._stop.is_set() or not self._should_restart():
            return False
        await self._back_off(self._restarts.next(began, time.monotonic()))
        return True

    def _should_restart(self) -> bool:
        state = self.facts.state
        assert isinstance(state, Terminated)
        policy = self.pod.spec.get("restartPolicy", "Always")
        if self.role is Role.SIDECAR:
            return True
        if self.role is Role.INIT:
            return state.exit_code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and state.exit_code != 0)

    async def pause(self, seconds: float) -> None:
        """Wait; ends the container's run when the Pod is stopped meanwhile."""
        if self._stop.is_set():
            raise _StoppedError
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise _StoppedError

    async def _back_off(self, seconds: float) -> None:
        state = self.facts.state
        assert isinstance(state, Terminated)
        if seconds > 0:
            pod = self.pod
            who = f"container={self.name} pod={pod.name}_{pod.namespace}({pod.uid})"
            message = f"back-off {_go_duration(seconds)} restarting failed {who}"
            self.set(state=Waiting("CrashLoopBackOff", message), last=state)
            self.event(
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {self.name} in pod {pod.name}_{pod.namespace}({pod.uid})",
            )
        await self.pause(seconds)
        self.set(last=state, restarts=self.facts.restarts + 1)

    # Start

    async def _start(self, image: Image) -> ContainerProcess:
        attempt = self.facts.restarts
        self.directory.mkdir(parents=True, exist_ok=True)
        self._termination_file(attempt).touch()
        self._termination_file(attempt).chmod(0o666)
        while True:
            try:
                spec = await launch_spec(self.pod, self.spec, image, self._termination_file(attempt))
                break
            except ConfigError as problem:
                self.set(state=Waiting("CreateContainerConfigError", str(problem)))
                self.event("Warning", "Failed", f"Error: {problem}")
                await self.pause(1)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                _log.info("%s of %s/%s: %r, again in a moment", self.name, self.pod.namespace, self.pod.name, problem)
                await self.pause(0.5)
        if self._stop.is_set():
            raise _StoppedError
        self.event("Normal", "Created", f"Container created: {self.name}")
        if self.pod.start_trouble(self.name):
            raise StartError(f"start refused by the annotation devcluster/start-error={self.name}")
        try:
            process = await ContainerProcess.start(spec, self.directory, self.log(attempt))
        except OSError as problem:
            raise StartError(f"the node cannot start a process: {problem}") from problem
        identity = hashlib.sha256(f"{self.pod.uid}/{self.name}/{attempt}".encode()).hexdigest()
        self._oom_killed = False
        self._process, self._end = process, asyncio.create_task(process.wait())
        self.set(
            state=Running(datetime.now(UTC)),
            container_id=f"devcluster://{identity}",
            image_id=image_id(self.spec["image"]),
            started=False,
            ready=False,
        )
        self.event("Normal", "Started", f"Container started: {self.name}")
        return process

    def _start_failed(self, problem: str) -> None:
        message = (
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create "
            f"failed: unable to start container process: error during container init: {problem}"
        )
        self.event("Warning", "Failed", f"Error: {message}")
        now = datetime.now(UTC)
        self.set(state=Terminated(128, "StartError", now, now, message), ready=False, started=False)

    def _termination_file(self, attempt: int) -> Path:
        return self.directory / f"termination-{attempt}"

    # Life and end of one run

    async def _live(self, process: ContainerProcess) -> None:
        assert self._end is not None
        helpers = [asyncio.create_task(self._probe(process)), asyncio.create_task(self._guard_memory(process))]
        state = self.facts.state
        assert isinstance(state, Running)
        try:
            code = await asyncio.shield(self._end)
        finally:
            for helper in helpers:
                helper.cancel()
        process.clean_up()
        self.started.clear()
        ended = self._ended(code, state.started_at)
        self.set(state=ended, ready=False, started=False)

    def _ended(self, code: int, started_at: datetime) -> Terminated:
        reason = "Completed" if code == 0 else "OOMKilled" if self._oom_killed else "Error"
        return Terminated(
            exit_code=code,
            reason=reason,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            message=self._termination_message(code),
            container_id=self.facts.container_id,
        )

    def _termination_message(self, code: int) -> str:
        attempt = self.facts.restarts
        message = _read_end(self._termination_file(attempt), _MESSAGE_LIMIT)
        if not message and code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = _read_end(self.log(attempt), _FALLBACK_BYTES).splitlines(keepends=True)
            message = "".join(lines[-_FALLBACK_LINES:])
        return message

    async def _guard_memory(self, process: ContainerProcess) -> None:
        """Do what the kernel does to a cgroup over its limit: kill, when the processes use more than the limit."""
        limit = self.spec.get("resources", {}).get("limits", {}).get("memory")
        if limit is None:
            return
        while process.running:
            if await asyncio.to_thread(memory_bytes, process.pid) > parse_quantity(limit):
                self.kill(out_of_memory=True)
            await asyncio.sleep(_MEMORY_PERIOD)

    async def _probe(self, process: ContainerProcess) -> None:
        if "postStart" in self.spec.get("lifecycle", {}) and not await self._post_start(process):
            return

        def on_started() -> None:
            self.set(started=True)
            self.started.set()

        def on_unhealthy(kind: Kind, message: str) -> None:
            if process.running:
                self.event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {message}")

        def on_failed(kind: Kind) -> None:
            grace = self.spec[f"{kind}Probe"].get("terminationGracePeriodSeconds", self.pod.grace)
            self.event("Normal", "Killing", f"Container {self.name} failed {kind} probe, will be restarted")
            self._killer = asyncio.create_task(self._end_process(process, grace))

        await Prober(
            self.spec,
            lambda probe, timeout: run_handler(probe, self.spec, self.pod.address, process, timeout),
            on_started=on_started,
            on_ready=lambda ready: self.set(ready=ready),
            on_failed=on_failed,
            on_unhealthy=on_unhealthy,
            deleting=self._stop.is_set,
        ).run()

    async def _post_start(self, process: ContainerProcess) -> bool:
        try:
            await run_handler(self.spec["lifecycle"]["postStart"], self.spec, self.pod.address, process, None)
        except HandlerError as problem:
            self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}")
            self._killer = asyncio.create_task(self._end_process(process, self.pod.grace))
            return False
        return True

    # Stopping

    async def _end_process(self, process: ContainerProcess, grace: float) -> None:
        """preStop, SIGTERM, and SIGKILL when `grace` seconds are over."""
        assert self._end is not None
        deadline = time.monotonic() + grace
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and process.running and grace > 0:
            await self._pre_stop(hook, process, grace)
        process.signal(signal.Signals[self.spec.get("lifecycle", {}).get("stopSignal", "SIGTERM")])
        # kubelet leaves two seconds for SIGTERM when the hook has used the grace period up
        remaining = max(deadline - time.monotonic(), 2.0 if hook else 0.0)
        _, pending = await asyncio.wait([self._end], timeout=remaining)
        if pending:
            process.kill()
            await asyncio.wait([self._end])

    async def _pre_stop(self, hook: Object, process: ContainerProcess, grace: float) -> None:
        assert self._end is not None
        running = asyncio.create_task(run_handler(hook, self.spec, self.pod.address, process, grace))
        await asyncio.wait([running, self._end], return_when=asyncio.FIRST_COMPLETED, timeout=grace)
        if not running.done():
            running.cancel()
        elif not running.cancelled() and isinstance(running.exception(), HandlerError):
            self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {running.exception()}")

    async def stop(self, grace: float) -> None:
        """Stop the container for good within `grace` seconds."""
        self._stop.set()
        process = self._process
        if process is not None and process.running:
            self.event("Normal", "Killing", f"Stopping container {self.name}")
            await self._end_process(process, grace)

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process."""
        if self._process is not None:
            self._process.signal(signal.Signals(number))

    def kill(self, *, out_of_memory: bool = False) -> None:
        """Kill the container's processes now; it is restarted as after a crash."""
        if self._process is not None:
            self._oom_killed = out_of_memory
            self._process.kill()


def _read_end(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _go_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return (f"{int(minutes)}m" if minutes else "") + f"{rest:g}s"
