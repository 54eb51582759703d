"""What is mounted where in a container, and what stands for it where nothing can be mounted. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine, shown at `target`."""

    source: str
    target: str
    read_only: bool


def rewrite(text: str, mounts: Iterable[Mount]) -> str:
    """Replace mount paths by the directories behind them, for containers that see the host's file system."""
    for mount in sorted(mounts, key=lambda mount: -len(mount.target)):
        pattern = rf"(?<![\w./-]){re.escape(mount.target)}(?=$|[/:;,\s\"'\])}}])"
        text = re.sub(pattern, mount.source.replace("\\", r"\\"), text)
    return text
