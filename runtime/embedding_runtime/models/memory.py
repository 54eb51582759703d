"""How much memory is free for this process, and keeping what was used once instead of giving it back at every batch."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
# mallopt's names of what follows (malloc.h), and the values set here.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 * 1024 * 1024
_LARGEST_KEPT_BLOCK = 32 * 1024 * 1024
_log = logging.getLogger(__name__)


def free_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """What the machine has available or, if less, what the container's limit leaves. 0 when neither is known."""
    found = [value for value in (_available(meminfo), _left(cgroup)) if value is not None]
    return min(found, default=0)


def keep_memory() -> bool:
    """Let the C library keep freed blocks of a batch's size for the next batch; whether it was told so.

    By default glibc maps every block of more than 128 KiB to 32 MiB freshly and returns it when freed, and the kernel
    fills it with zeros page by page: measured, a third to half of the time of an int8 forward. Variables of the user
    (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_, GLIBC_TUNABLES) and other C libraries stay as they are.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(kilobytes) * 1024 if kilobytes else None


def _left(cgroup: Path) -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
        except (OSError, ValueError):
            continue
    return None
