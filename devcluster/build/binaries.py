"""Finding the programs of the control plane: given, cached, installed on this machine, or built."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.build.progress import Step
from devcluster.build.recipe import BINARIES, MODULES, Binary, fingerprint, go_environment, states_minor_version
from devcluster.build.toolchain import Toolchain, choose_toolchain, install
from devcluster.errors import BuildError
from devcluster.paths import cache_directory

_TAIL = 30
Progress = Callable[[str], None]


def _silent(_: str) -> None:
    return


@dataclass(frozen=True)
class Place:
    """Where a program is; `path` does not exist yet when `origin` is `to build`."""

    binary: Binary
    path: Path
    origin: str


def find(binary: Binary, toolchain: Toolchain, cache: Path) -> Place:
    """Look for a program: KUBEBUILDER_ASSETS (trusted as given), the cache, PATH (the pinned minor version only)."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / binary.name, os.X_OK):
        return Place(binary, (Path(assets) / binary.name).resolve(), "KUBEBUILDER_ASSETS")
    cached = cache / "binaries" / f"{binary.name}-{fingerprint(binary, toolchain.version)}" / binary.name
    if cached.exists():
        return Place(binary, cached, "cache")
    installed = shutil.which(binary.name)
    if installed is not None and _has_pinned_version(installed, binary):
        return Place(binary, Path(installed), "PATH")
    return Place(binary, cached, "to build")


def _has_pinned_version(program: str, binary: Binary) -> bool:
    try:
        done = subprocess.run(
            [program, *binary.version_command], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and states_minor_version(done.stdout, binary)


def locate(progress: Progress = _silent, binaries: Sequence[Binary] = BINARIES) -> dict[str, Path]:
    """Paths of all programs by name; what is missing is built first.

    Raises:
        BuildError: a program cannot be built; the message has the end of what Go said.
    """
    cache, toolchain = cache_directory(), choose_toolchain()
    places = [find(binary, toolchain, cache) for binary in binaries]
    if any(place.origin == "to build" for place in places):
        with _building(cache, progress):
            places = [find(binary, toolchain, cache) for binary in binaries]  # another build may just have ended
            missing = [place for place in places if place.origin == "to build"]
            if missing:
                program = install(toolchain, cache)
                for number, place in enumerate(missing, 1):
                    build(
                        place,
                        program,
                        f"building {place.binary.name} {place.binary.version} ({number} of {len(missing)})",
                    )
    return {place.binary.name: place.path for place in places}


@contextlib.contextmanager
def _building(cache: Path, progress: Progress) -> Iterator[None]:
    """Hold the builders' lock; it is free again when its holder dies."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "build.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another build is running, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(place: Place, go: Path, text: str, modules: Path = MODULES) -> None:
    """Build one program; it appears in its place complete or not at all.

    Raises:
        BuildError: Go failed.
    """
    binary, partial = place.binary, place.path.with_name(f".{place.path.name}.partial")
    place.path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    command = [str(go), "build", *binary.build_flags, "-o", str(partial), binary.package]
    with Step(text):
        done = subprocess.run(
            command,
            cwd=modules / binary.module,
            env=go_environment(dict(os.environ)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-_TAIL:])
        raise BuildError(
            f"{binary.name} cannot be built; Go ended with:\n{end}\n"
            "Sources come through Go's module proxy (GOPROXY), checked against go.sum; about 6 GB of disk are needed. "
            "What has been built is kept: when the cause is gone, run it again. KUBEBUILDER_ASSETS=DIRECTORY takes "
            f"finished programs ({', '.join(binary.name for binary in BINARIES)}) instead."
        )
    partial.replace(place.path)
