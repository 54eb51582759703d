"""Processes below the supervisor: it adopts orphans, and learns when its own parent has died."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PERIOD = 1.0


def adopt_orphans() -> None:
    """Become the parent of what processes started by ours leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send a signal when the parent dies, or send it now if `parent` (its PID) is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        signal.raise_signal(number)


async def reap_orphans() -> None:
    """Wait for adopted processes that have ended, for ever.

    asyncio waits for the processes that it started within moments, so one that is still a zombie at a second look is
    nobody's.
    """
    before = None
    while True:
        await asyncio.sleep(_PERIOD)
        before = _reap(before)


def _reap(seen: int | None) -> int | None:
    """Wait for `seen` if it is still a zombie; returns the next zombie to look at again."""
    pid = _ended_child()
    if pid is None or pid != seen:
        return pid
    os.waitpid(pid, os.WNOHANG)
    return _ended_child()


def _ended_child() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
