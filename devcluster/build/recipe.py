"""What is built, from what, and how its content is named. Pure but for reading the module files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).resolve().parent.parent / "binaries"
KUBERNETES_VERSION = "1.37.1"
HELM_VERSION = "4.3.1"
ETCD_VERSION = "3.7.3"
OLDEST_GO = (1, 26)

_COMPONENT = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-X {_COMPONENT}.gitVersion=v{KUBERNETES_VERSION}",
    f"-X {_COMPONENT}.gitMajor={KUBERNETES_VERSION.split('.')[0]}",
    f"-X {_COMPONENT}.gitMinor={KUBERNETES_VERSION.split('.')[1]}",
    f"-X {_COMPONENT}.gitTreeState=clean",
)
_HELM_FLAGS = (f"-X helm.sh/helm/v4/internal/version.version=v{HELM_VERSION}",)


@dataclass(frozen=True)
class Binary:
    """One program of the control plane."""

    name: str
    module: str
    """The directory below `binaries/` whose go.mod pins everything."""
    package: str
    linker_flags: tuple[str, ...]
    version: str
    """The version that it has to state, such as 1.37.1."""
    version_command: tuple[str, ...]

    @property
    def build_flags(self) -> tuple[str, ...]:
        """What follows `go build`, without the output."""
        return ("-trimpath", "-ldflags", " ".join(("-s", "-w", *self.linker_flags)))


def _kubernetes(name: str, version_command: tuple[str, ...] = ("--version",)) -> Binary:
    return Binary(
        name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS, KUBERNETES_VERSION, version_command
    )


BINARIES = (
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3", (), ETCD_VERSION, ("--version",)),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl", ("version", "--client")),
    Binary("helm", "kubernetes", "helm.sh/helm/v4/cmd/helm", _HELM_FLAGS, HELM_VERSION, ("version", "--short")),
)


def go_environment(base: dict[str, str]) -> dict[str, str]:
    """The environment of a build: no C compiler, no other toolchain, the module files as they are, proxies as set."""
    kept = {name: value for name, value in base.items() if not name.startswith(("GOFLAGS", "GOOS", "GOARCH", "CGO_"))}
    return {**kept, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def fingerprint(binary: Binary, go_version: str, modules: Path = MODULES) -> str:
    """A name for the binary's content: changes with its pinned sources, the toolchain and the flags."""
    digest = hashlib.sha256()
    for file in ("go.mod", "go.sum"):
        digest.update((modules / binary.module / file).read_bytes())
    digest.update(json.dumps([binary.package, binary.build_flags, go_version]).encode())
    return digest.hexdigest()[:20]


def states_minor_version(output: str, binary: Binary) -> bool:
    """Whether the output of a program's version command states a version with the pinned major and minor number."""
    wanted = binary.version.split(".")[:2]
    found = re.search(r"(?<![\d.])v?(\d+)\.(\d+)\.\d+(-\S+)?", output)
    return found is not None and [found[1], found[2]] == wanted and found[3] is None
