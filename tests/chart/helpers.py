"""Rendering the chart with Helm itself, and reading what came out."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devcluster.build.binaries import locate
from devcluster.build.recipe import BINARIES

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "embedding-operator"
ALL_ON = Path(__file__).with_name("all-on.yaml")
RELEASE = "release"
NAMESPACE = "operators"
FULLNAME = f"{RELEASE}-embedding-operator"
MINORS = ("1.33", "1.34", "1.35", "1.36", "1.37")
"""The Kubernetes versions the chart supports: Chart.yaml's kubeVersion up to the newest there is."""

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}

Object = dict[str, Any]


@cache
def helm_binary() -> str:
    """The helm to test with: $HELM, or devcluster's, which is built when there is none of that version."""
    return os.environ.get("HELM") or str(locate(binaries=[it for it in BINARIES if it.name == "helm"])["helm"])


def helm(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm without any cluster; the caller looks at the return code."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home or REPOSITORY / ".venv"), "KUBECONFIG": "/dev/null"}
    return subprocess.run(
        [helm_binary(), *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


class RenderError(Exception):
    """Helm refused the values; the message is Helm's."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering."""

    objects: tuple[Object, ...]
    text: str

    def all(self, kind: str) -> list[Object]:
        """Every object of that kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The only object of that kind, or of that kind and name."""
        found = [item for item in self.all(kind) if name in (None, item["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}, not one"
        return found[0]

    @property
    def deployment(self) -> Object:
        """The operator's Deployment."""
        return self.one("Deployment")

    @property
    def pod_spec(self) -> Object:
        """The Pod that the Deployment makes."""
        spec: Object = self.deployment["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        """The operator's only container."""
        (container,) = self.pod_spec["containers"]
        found: Object = container
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Its plain environment variables."""
        return {entry["name"]: entry["value"] for entry in self.container["env"] if "value" in entry}


def render(
    values: Mapping[str, Any] | None = None, *files: Path, name: str = RELEASE, namespace: str = NAMESPACE
) -> Rendered:
    """`helm template` with `files` and then `values`; raises RenderError with Helm's words when it refuses.

    The same arguments give the same result, which must not be changed.
    """
    return _render(name, namespace, *value_arguments(values, files))


@cache
def _render(name: str, namespace: str, *arguments: str) -> Rendered:
    result = helm("template", name, str(CHART), "--namespace", namespace, *arguments)
    if result.returncode:
        raise RenderError(result.stderr)
    objects = tuple(item for item in yaml.load_all(result.stdout, yaml.CSafeLoader) if item)
    return Rendered(objects, result.stdout)


def notes(values: Mapping[str, Any] | None = None, *files: Path) -> str:
    """NOTES.txt as `helm install` prints it, without a cluster."""
    arguments = value_arguments(values, files)
    result = helm("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\nNOTES:\n", 1)[1]


def value_arguments(values: Mapping[str, Any] | None, files: tuple[Path, ...] = ()) -> list[str]:
    """Helm's flags for values by dotted path, after those of `files`."""
    from_files = [item for file in files for item in ("--values", str(file))]
    given = [item for key, value in (values or {}).items() for item in ("--set-json", f"{key}={json.dumps(value)}")]
    return [*from_files, *given]


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item)


def rights(role: Object) -> set[tuple[str, str, str]]:
    """A Role's or ClusterRole's rules as (API group, resource, verb); resource names have their own test."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
