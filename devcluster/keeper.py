"""The process above a cluster: whatever happens to the supervisor, nothing that it started is left behind.

Run as a script by `devcluster.launch`. It imports the standard library only, so that it stays small and cannot fail
with the code that it watches. As a child subreaper it becomes the parent of every orphan below it, so when the
supervisor ends, even by SIGKILL, it finds and kills all descendants. When the keeper itself is killed, the kernel
tells the supervisor (PR_SET_PDEATHSIG), which then does the same. Were both killed at one stroke, the kernel would
still kill the supervisor's children, and with each container in a PID namespace all of its processes.

Arguments: the state directory; optionally a file descriptor whose end of file means that the owner has died; then
optionally `temporary`, when nobody else is going to remove the state directory in that case.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, pending = [], [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return


def kill_descendants() -> None:
    """Kill everything below this process, until nothing is left."""
    for _ in range(1000):
        _reap()
        pids = _descendants()
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def main() -> None:
    """Start the supervisor, wait for its end or for the order to end it, and clean up."""
    state = sys.argv[1]
    lifeline = int(sys.argv[2]) if len(sys.argv) > 2 else None
    temporary, orphaned = sys.argv[3:] == ["temporary"], False
    lock = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT, 0o600)  # held: says that the cluster is up
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    supervisor = subprocess.Popen(
        [sys.executable, "-m", "devcluster.supervisor", state, str(os.getpid())],
        stdin=subprocess.DEVNULL,
    )
    watched = [wake_read] if lifeline is None else [wake_read, lifeline]
    deadline: float | None = None
    try:
        while supervisor.poll() is None and (deadline is None or time.monotonic() < deadline):
            readable, _, _ = select.select(watched, [], [], 0.5 if deadline is None else 0.1)
            if wake_read in readable:
                os.read(wake_read, 512)
                _reap()
            if lifeline is not None and lifeline in readable:
                stopping, orphaned, watched = True, True, [wake_read]
            if stopping and deadline is None:
                deadline = time.monotonic() + _GRACE
                supervisor.terminate()
    finally:
        kill_descendants()
        if temporary and orphaned:
            shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main()
