"""`spec.podTemplate`: additions to the Pods, and what is refused in them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .borrowed import Container, Volume, VolumeMount
from .common import Annotations, Labels
from .constants import CONTAINER_NAME, GROUP, RESERVED_MOUNT_PATHS, RESERVED_VOLUMES


def _map_list(*keys: str) -> Schema:
    """A list whose entries are told apart by `keys`."""
    return Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


def _privileged(containers: Iterable[dict[str, Any]]) -> bool:
    return any((container.get("securityContext") or {}).get("privileged") for container in containers)


def _names(entries: Iterable[dict[str, Any]]) -> set[str]:
    return {str(entry.get("name")) for entry in entries}


def _covering(path: str) -> set[str]:
    """A path and every directory above it, each with and without a slash at its end."""
    above = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
    return {text for directory in above for text in (directory, f"{directory.rstrip('/')}/")}


_COVERING = tuple(sorted({text for path in RESERVED_MOUNT_PATHS for text in _covering(path)}))


def _meets_reserved(path: str) -> bool:
    """Whether a mount here is in one of the operator's, or would hide one. A relative path begins at the root."""
    clean = posixpath.normpath(f"/{path.lstrip('/')}")
    inside = any(clean.startswith(f"{reserved}/") for reserved in RESERVED_MOUNT_PATHS)
    return inside or clean in _COVERING


_UNPRIVILEGED = "!has(self.{0}) || self.{0}.all(c, !has(c.securityContext) || !has(c.securityContext.privileged) || !c.securityContext.privileged)"  # noqa: E501
_NOT_RUNTIME = f"!has(self.{{0}}) || self.{{0}}.all(c, c.name != '{CONTAINER_NAME}')"


class PodTemplateAdditions(ApiModel):
    """Additions to the Pod template. They never override what the operator renders."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.volumes) || self.volumes.all(v, !has(v.hostPath))",
            message="hostPath volumes are refused; use a PersistentVolumeClaim",
            holds=lambda it: not any("hostPath" in volume for volume in it.volumes),
        ),
        Rule(
            cel=f"!has(self.volumes) || self.volumes.all(v, !(v.name in {list(RESERVED_VOLUMES)!r}))",
            message=f"volume names {', '.join(RESERVED_VOLUMES)} are the operator's; use another",
            holds=lambda it: not _names(it.volumes) & set(RESERVED_VOLUMES),
        ),
        Rule(
            # Of the paths that are written in a roundabout way (//, ..) the parser takes care: splitting them up would
            # exceed the cost that the API server allows.
            cel=f"!has(self.volumeMounts) || self.volumeMounts.all(m, !(m.mountPath in {list(_COVERING)!r}) && "
            f"{' && '.join(f'!m.mountPath.startsWith({path + chr(47)!r})' for path in RESERVED_MOUNT_PATHS)})",
            message=f"mount paths {', '.join(RESERVED_MOUNT_PATHS)}, and those inside or above them, are the "
            "operator's; use another",
            holds=lambda it: not any(_meets_reserved(str(mount.get("mountPath"))) for mount in it.volume_mounts),
        ),
        Rule(
            cel=_UNPRIVILEGED.format("initContainers"),
            message="privileged init containers are refused; drop securityContext.privileged",
            holds=lambda it: not _privileged(it.init_containers),
        ),
        Rule(
            cel=_UNPRIVILEGED.format("sidecars"),
            message="privileged sidecars are refused; drop securityContext.privileged",
            holds=lambda it: not _privileged(it.sidecars),
        ),
        Rule(
            cel=_NOT_RUNTIME.format("initContainers"),
            message=f"the container name {CONTAINER_NAME} is the operator's; use another",
            holds=lambda it: CONTAINER_NAME not in _names(it.init_containers),
        ),
        Rule(
            cel=_NOT_RUNTIME.format("sidecars"),
            message=f"the container name {CONTAINER_NAME} is the operator's; use another",
            holds=lambda it: CONTAINER_NAME not in _names(it.sidecars),
        ),
        Rule(
            cel="!has(self.initContainers) || !has(self.sidecars) || "
            "self.initContainers.all(one, self.sidecars.all(other, one.name != other.name))",
            message="an init container and a sidecar must not have the same name; rename one",
            holds=lambda it: not _names(it.init_containers) & _names(it.sidecars),
        ),
        Rule(
            cel=f"!has(self.labels) || self.labels.all(key, !key.startsWith('{GROUP}/'))",
            message=f"labels that begin with {GROUP}/ are the operator's; use another prefix",
            holds=lambda it: not any(key.startswith(f"{GROUP}/") for key in it.labels),
        ),
    )

    labels: Labels = {}
    """Further labels of the Pods."""

    annotations: Annotations = {}
    """Annotations of the Pods."""

    volumes: Annotated[tuple[Volume, ...], Field(max_length=32), _map_list("name")] = ()
    """Further volumes. hostPath is refused."""

    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32), _map_list("mountPath")] = ()
    """Further mounts of the runtime container."""

    init_containers: Annotated[tuple[Container, ...], Field(max_length=8), _map_list("name")] = ()
    """Containers that run before the runtime starts. They get the runtime's security context where they state none."""

    sidecars: Annotated[tuple[Container, ...], Field(max_length=8), _map_list("name")] = ()
    """Containers beside the runtime. They get the runtime's security context where they state none."""
