"""What containers use of memory and Pods of their volumes, read where a kubelet and the kernel would account for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def _processes(root: int) -> Iterator[int]:
    """A process and everything below it. Processes that end meanwhile are left out."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, children.read_text().split())


def _kibibytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return 0


def memory_bytes(root: int) -> int:
    """Memory of a container's processes that the kernel cannot take back, in bytes: what its cgroup would count
    without the page cache. `root` is the container's first process."""
    return 1024 * sum(_kibibytes(pid) for pid in _processes(root))


def directory_bytes(directory: Path) -> int:
    """What the files below a directory occupy, in bytes. Those that vanish meanwhile are left out."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total
