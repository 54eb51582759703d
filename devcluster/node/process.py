"""A container's process: started through sandbox.py, signalled, waited for, entered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster import sandboxed
from devcluster.node.mounts import Mount, rewrite
from devcluster.sandboxed import StartError


@dataclass(frozen=True)
class ProcessSpec:
    """Everything a container's process needs."""

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    user: int
    group: int
    hostname: str
    mounts: Sequence[Mount]
    keep: Sequence[str]
    read_only_root: bool
    isolate: bool


class ContainerProcess:
    """A running process of a container."""

    def __init__(self, spec: ProcessSpec, work: Path, process: asyncio.subprocess.Process, pid: int) -> None:
        self.spec, self.pid = spec, pid
        self._work, self._process = work, process

    @classmethod
    async def start(cls, spec: ProcessSpec, work: Path, log: Path) -> ContainerProcess:
        """Start a container; its output goes to `log`, `work` is a directory for its private files.

        Raises:
            StartError: the command cannot be executed.
        """
        shutil.rmtree(work / "scratch", ignore_errors=True)  # a restarted container starts from its image
        for name in ("staging", "scratch"):
            (work / name).mkdir(parents=True, exist_ok=True)
        (work / "scratch").chmod(0o777)
        description = {
            "isolate": spec.isolate,
            "command": list(spec.command),
            "environment": dict(spec.environment),
            "directory": spec.directory,
            "user": spec.user,
            "group": spec.group,
            "hostname": spec.hostname,
            "mounts": [mount.__dict__ for mount in spec.mounts],
            "keep": list(spec.keep),
            "read_only_root": spec.read_only_root,
            "staging": str(work / "staging"),
            "scratch": str(work / "scratch"),
        }
        process, facts = await sandboxed.start(description, file=work / "start.json", log=log)
        return cls(spec, work, process, int(facts["pid"]))

    async def wait(self) -> int:
        """The exit code once the process has ended; 128 + N when signal N ended it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the container's main process."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill every process of the container."""
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            if self.spec.isolate:
                os.kill(self.pid, signal.SIGKILL)  # PID 1 of its namespace: the kernel kills the rest
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def clean_up(self) -> None:
        """Kill what a container that ended has left behind in its session; only without namespaces there can be any."""
        if not self.spec.isolate:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def execute(self, command: Sequence[str], timeout: float | None) -> tuple[int, str]:
        """Run a command inside the container; its exit code and the first 10 KB of its output.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and was killed.
        """
        if not self.spec.isolate:
            command = [rewrite(part, self.spec.mounts) for part in command]
        path = self._work / f"enter-{uuid.uuid4().hex}.json"
        path.touch(mode=0o600)
        path.write_text(
            json.dumps(
                {
                    "parent": os.getpid(),
                    "pid": self.pid,
                    "isolate": self.spec.isolate,
                    "command": list(command),
                    "environment": dict(self.spec.environment),
                    "directory": self.spec.directory,
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            *(*sandboxed.SANDBOX_COMMAND, "enter", str(path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout)
        finally:
            path.unlink(missing_ok=True)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        code = process.returncode or 0
        return code if code >= 0 else 128 - code, output[:10240].decode(errors="replace")


async def isolation_works(work: Path) -> bool:
    """Whether this machine lets us put containers into namespaces of their own; `work` is an existing directory."""
    spec = ProcessSpec(
        command=["true"],
        environment={"PATH": "/usr/bin:/bin"},
        directory="/",
        user=65532,
        group=65532,
        hostname="probe",
        mounts=[Mount(str(work), "/devcluster/probe", True)],
        keep=[],
        read_only_root=True,
        isolate=True,
    )
    try:
        process = await ContainerProcess.start(spec, work, work / "probe.log")
    except StartError:
        return False
    return await process.wait() == 0
