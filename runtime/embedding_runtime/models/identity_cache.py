"""Remembers hashes of model files, so that a restart does not read gigabytes twice.

The record lies beside the weights when that directory can be written, otherwise in the cache directory. It is keyed by
path, size and times of every file; anything unexpected in it means computing again, never an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NAME = ".embedding-runtime.json"
_log = logging.getLogger(__name__)


def state_of(directory: Path, paths: Sequence[str], facts: str) -> str:
    """A key that changes whenever a file or anything else the record depends on does."""
    digest = hashlib.sha256(facts.encode())
    for path in sorted(paths):
        status = (directory / path).stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def load(directory: Path, cache: Path, state: str) -> dict[str, Any] | None:
    """The record stored for exactly this state, or None."""
    for path in _places(directory, cache):
        try:
            record = json.loads(path.read_bytes())
            if isinstance(record, dict) and record.get("state") == state:
                return record
        except (OSError, ValueError):
            continue
    return None


def store(directory: Path, cache: Path, state: str, record: dict[str, Any]) -> None:
    """Keep the record at the first place that can be written; without one, only say so."""
    text = json.dumps({**record, "state": state}, sort_keys=True)
    for path in _places(directory, cache):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_NAME)
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.replace(temporary, path)
            return
        except OSError:
            continue
    _log.info("the fingerprint cannot be cached: neither the model directory nor %s can be written", cache)


def _places(directory: Path, cache: Path) -> tuple[Path, Path]:
    name = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    return directory / _NAME, cache / "identities" / f"{name}.json"
