"""Starting and stopping a cluster's processes from outside."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from devcluster.control.processes import tail
from devcluster.errors import ClusterStartError, NotRunningError
from devcluster.paths import REPOSITORY
from devcluster.settings import ClusterSettings
from devcluster.state import State, is_up, read_state

_KEEPER = Path(__file__).with_name("keeper.py")
START_TIMEOUT = 120.0


@dataclass
class Handle:
    """A cluster that this process has started."""

    state: State
    _keeper: subprocess.Popen[bytes]
    _lifeline: int | None

    def release(self) -> None:
        """End the cluster if it is owned, and wait for its last process."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
            self._keeper.wait()

    def leave(self) -> None:
        """Let the cluster go on without this process."""
        self._keeper.returncode = 0  # nobody is going to wait for it


def clear(directory: Path) -> None:
    """Remove what a cluster has left in its state directory.

    Raises:
        ClusterStartError: the directory holds something else.
    """
    if directory.exists() and any(directory.iterdir()) and not (directory / "settings.json").is_file():
        raise ClusterStartError(f"{directory} holds files that are not a cluster's state: choose an empty directory")
    shutil.rmtree(directory, ignore_errors=True)


def start(
    settings: ClusterSettings,
    directory: Path,
    binaries: dict[str, Path],
    *,
    owned: bool,
    temporary: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Handle:
    """Start a cluster in `directory` and wait until its nodes are Ready; what an earlier one left there is removed.

    Args:
        owned: the cluster ends with this process, or when the handle is released.
        temporary: an owned cluster's directory goes with it even when this process is killed.
        progress: told what is being waited for, when that changes.

    Raises:
        ClusterStartError: a cluster is up there already, or this one does not come up.
    """
    with _alone(directory):
        if is_up(directory):
            raise ClusterStartError(
                f"the cluster {settings.name!r} is up already; "
                f"`python -m devcluster status --name {settings.name}` shows it, "
                f"`python -m devcluster down --name {settings.name}` stops it"
            )
        clear(directory)
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)  # Secrets lie in it
        chosen = {"settings": settings.model_dump(), "binaries": {name: str(path) for name, path in binaries.items()}}
        (directory / "settings.json").write_text(json.dumps(chosen, indent=2))
        (directory / "logs").mkdir()
        keeper, lifeline = _start_keeper(directory, owned, temporary)
        return _wait(directory, keeper, lifeline, progress)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let only one process at a time start a cluster in a directory; an abstract socket goes with its process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0embedding-operator/devcluster/start/{hashlib.sha256(bytes(directory)).hexdigest()}")
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            raise ClusterStartError(f"another process is starting a cluster in {directory}: wait for it") from None
        yield


def _wait(
    directory: Path, keeper: subprocess.Popen[bytes], lifeline: int | None, progress: Callable[[str], None]
) -> Handle:
    deadline, shown = time.monotonic() + START_TIMEOUT, ""
    try:
        while True:
            state = read_state(directory)
            if state is not None and state.phase == "ready":
                return Handle(state, keeper, lifeline)
            if state is not None and state.message != shown and state.phase == "starting":
                shown = state.message
                progress(shown)
            ended = keeper.poll() is not None
            if ended or (state is not None and state.phase == "failed"):
                raise ClusterStartError(_why(directory, read_state(directory)))
            if time.monotonic() > deadline:
                raise ClusterStartError(f"the cluster is not up after {START_TIMEOUT:.0f} s. {_why(directory, state)}")
            time.sleep(0.05)
    except BaseException:
        if lifeline is not None:
            os.close(lifeline)
        _end(keeper)
        raise


def _start_keeper(directory: Path, owned: bool, temporary: bool) -> tuple[subprocess.Popen[bytes], int | None]:
    command = [sys.executable, str(_KEEPER), str(directory)]
    read, write = os.pipe() if owned else (None, None)
    if read is not None:
        command += [str(read), *(["temporary"] if temporary else [])]
    modules = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": modules, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        with (directory / "logs" / "supervisor.log").open("wb") as log:
            keeper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                pass_fds=[] if read is None else [read],
                start_new_session=True,
            )
    finally:
        if read is not None:
            os.close(read)
    return keeper, write


def _end(keeper: subprocess.Popen[bytes]) -> None:
    keeper.terminate()
    try:
        keeper.wait(30)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _why(directory: Path, state: State | None) -> str:
    message = state.message if state is not None else ""
    end = tail(directory / "logs" / "supervisor.log")
    return "\n".join(part for part in (message, end, f"The logs are in {directory / 'logs'}.") if part)


def stop(directory: Path, timeout: float = 40.0) -> None:
    """Stop the cluster of a state directory and remove the directory.

    Raises:
        NotRunningError: none is up there.
        ClusterStartError: its processes do not end.
    """
    if not is_up(directory):
        clear(directory)
        raise NotRunningError(f"no cluster is up in {directory}; `python -m devcluster up` starts one")
    deadline = time.monotonic() + timeout
    state = read_state(directory)
    while state is None and time.monotonic() < deadline:  # caught in its first moments
        time.sleep(0.05)
        state = read_state(directory)
    if state is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
    while is_up(directory):
        if time.monotonic() > deadline:
            raise ClusterStartError(
                f"the cluster in {directory} does not stop; its supervisor is process {state and state.pid}"
            )
        time.sleep(0.05)
    clear(directory)
