"""Where devcluster keeps its files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from devcluster.errors import DevclusterError

REPOSITORY = Path(__file__).resolve().parent.parent
"""The directory that holds the package; what `python -m devcluster` has to be started in, or find in PYTHONPATH."""


CLUSTER_NAME = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
"""What a cluster may be called: it begins the names of its nodes."""


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/embedding-operator`, by default `~/.cache/embedding-operator`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "embedding-operator"


def state_directory(name: str) -> Path:
    """Where the cluster of that name keeps its state while it is up.

    Raises:
        DevclusterError: the name is no DNS label.
    """
    if not re.fullmatch(CLUSTER_NAME, name):
        raise DevclusterError(
            f"cluster name {name!r}: use at most 40 lower-case letters, digits and dashes, "
            "starting and ending with a letter or digit"
        )
    return clusters_directory() / name


def clusters_directory() -> Path:
    """Where clusters keep their state: `$DEVCLUSTER_STATE`, by default `clusters` in the cache directory."""
    given = os.environ.get("DEVCLUSTER_STATE")
    return Path(given).resolve() if given else cache_directory() / "clusters"
