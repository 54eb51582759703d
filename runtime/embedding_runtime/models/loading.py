"""Checks of what a stock class says about the weights it was given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from embedding_runtime.models.files import DirectoryError


def check_loaded(info: Mapping[str, Any], prefix: str = "", unused: re.Pattern[str] | None = None) -> None:
    """`info` is the loading info of from_pretrained; names that `unused` finds may be missing or left over.

    Raises DirectoryError when weights are missing, left over, or of the wrong shape.
    """
    mismatched = (str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    found: list[tuple[Iterable[str], str]] = [
        (info["missing_keys"], "are missing"),
        (info["unexpected_keys"], "are not part of the model"),
        (mismatched, "do not fit"),
        (info["error_msgs"], "do not fit"),
    ]
    for names, what in found:
        check_names(prefix, (name for name in names if not (unused and unused.search(name))), what)


def check_names(prefix: str, names: Iterable[str], what: str) -> None:
    """Raises DirectoryError, naming the first, when there are any."""
    found = sorted(names)
    if found:
        raise DirectoryError(f"{len(found)} weights {what}, the first is {prefix + found[0]!r}")
