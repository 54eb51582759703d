"""Environments and model directories of peers, made once and cached by content in ~/.cache/embedding-operator/peers."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError

_REPOSITORY = Path(__file__).parent.parent.parent
_EXPORTER = Path(__file__).parent / "export_onnx.py"
_COMPLETE = ".complete"


def cache() -> Path:
    """Where peers live: XDG_CACHE_HOME or ~/.cache, then embedding-operator/peers."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedding-operator" / "peers"


def environment(name: str) -> Path:
    """The Python of the environment that requirements/bench-NAME.txt describes; made when it is not there.

    Raises BenchError when it cannot be made.
    """
    requirements = _REPOSITORY / "requirements" / f"bench-{name}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    directory = cache() / f"{name}-{_digest(requirements.read_bytes(), version.encode())}"
    python = directory / "bin" / "python"
    with _lock(directory):
        if not (directory / _COMPLETE).exists():
            print(f"bench: making the environment of {name} in {directory} (once; some gigabytes)", flush=True)
            _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(directory))
            _uv("pip", "install", "--python", str(python), "--require-hashes", "-r", str(requirements))
            (directory / _COMPLETE).touch()
    return python


def model_with_onnx(model: Path, exporter_python: Path) -> Path:
    """A copy of the model with `onnx/model.onnx`, exported in a peer's environment; made when it is not there.

    infinity leaves its optimised graph in it, so it is that peer's own.
    """
    weights = (model / "model.safetensors").read_bytes()
    directory = cache() / f"model-{_digest(weights, _EXPORTER.read_bytes(), str(exporter_python).encode())}"
    with _lock(directory):
        if not (directory / _COMPLETE).exists():
            print(f"bench: exporting the model to ONNX in {directory} (once)", flush=True)
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(model, directory)
            (directory / "onnx").mkdir(exist_ok=True)
            target = directory / "onnx" / "model.onnx"
            _run([str(exporter_python), str(_EXPORTER), str(directory), str(target)], "the ONNX export")
            (directory / _COMPLETE).touch()
    return directory


def _digest(*parts: bytes) -> str:
    together = hashlib.sha256()
    for part in parts:
        together.update(hashlib.sha256(part).digest())
    return together.hexdigest()[:12]


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """One process at a time makes a directory."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise BenchError("uv is not there; run `make environment` first")
    _run([uv, *arguments], f"uv {arguments[0]}")


def _run(command: list[str], what: str) -> None:
    """Run with its progress shown."""
    status = subprocess.run(command, check=False).returncode
    if status:
        raise BenchError(f"{what} failed with status {status}; what it wrote is above")
