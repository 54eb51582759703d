"""Processes of the control plane: started so that they die with their parent, restarted when they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from devcluster import sandboxed
from devcluster.errors import ClusterStartError

_log = logging.getLogger(__name__)


async def spawn(command: Sequence[str], *, log: Path, spec: Path) -> asyncio.subprocess.Process:
    """Start a program in its own session, its output appended to `log`, to be killed when this process dies.

    Raises:
        ClusterStartError: the program cannot be executed.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    description = {"isolate": False, "directory": "/", "environment": environment, "command": list(command)}
    try:
        process, _ = await sandboxed.start(description, file=spec, log=log)
    except sandboxed.StartError as problem:
        raise ClusterStartError(f"{command[0]} cannot be started: {problem}") from problem
    return process


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for a message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Component:
    """One program of the control plane, kept running until it is stopped."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, changed: Callable[[], None]) -> None:
        self.name = name
        self.command = list(command)
        self.log = directory / "logs" / f"{name}.log"
        self.restarts = 0
        self._spec = directory / f"{name}.json"
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the program; from now on it is restarted whenever it ends."""
        self._process = await spawn(self.command, log=self.log, spec=self._spec)
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self.restarts += 1
            _log.warning("%s ended with exit code %s, starting it again", self.name, code)
            self._changed()
            await asyncio.sleep(min(0.2 * self.restarts, 5))
            try:
                self._process = await spawn(self.command, log=self.log, spec=self._spec)
            except ClusterStartError as problem:
                _log.error("%s", problem)
                return
            self._changed()

    async def stop(self, grace: float = 5.0) -> None:
        """Ask the program to end, and kill it after `grace` seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
