"""From a container of a Pod to a process specification: environment, command, mounts, user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devcluster.control.kubeconfig import write_token_kubeconfig
from devcluster.node.environment import ConfigError, Lookup, Sources, command_line, expand, variables_of
from devcluster.node.mounts import Mount, rewrite
from devcluster.node.process import ProcessSpec
from devcluster.settings import Image

if TYPE_CHECKING:
    from devcluster.node.pod import PodWorker

Object = dict[str, Any]
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path


def references(container: Object) -> tuple[set[str], set[str]]:
    """The names of the Secrets and ConfigMaps that a container's variables refer to."""
    secrets, config_maps = set(), set()
    for entry in container.get("envFrom", ()):
        if "secretRef" in entry:
            secrets.add(entry["secretRef"]["name"])
        if "configMapRef" in entry:
            config_maps.add(entry["configMapRef"]["name"])
    for entry in container.get("env", ()):
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            secrets.add(source["secretKeyRef"]["name"])
        if "configMapKeyRef" in source:
            config_maps.add(source["configMapKeyRef"]["name"])
    return secrets, config_maps


def user_of(pod: Object, container: Object, image: Image) -> tuple[int, int]:
    """The user and group a container runs as.

    Raises:
        ConfigError: root, although `runAsNonRoot` is set.
    """
    security = {**pod["spec"].get("securityContext", {}), **container.get("securityContext", {})}
    user = security.get("runAsUser", image.user)
    if user == 0 and security.get("runAsNonRoot"):
        metadata = pod["metadata"]
        identity = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        what = (
            "container's runAsUser breaks non-root policy"
            if "runAsUser" in security
            else ("container has runAsNonRoot and image will run as root")
        )
        raise ConfigError(f'{what} (pod: "{identity}", container: {container["name"]})')
    return user, security.get("runAsGroup", image.user)


def volume_mounts(pod: PodWorker, container: Object, variables: Mapping[str, str]) -> list[Mount]:
    """The mounts of a container's volumes.

    Raises:
        ConfigError: a subPath leaves its volume, or cannot be made.
    """
    mounts = []
    for mount in container.get("volumeMounts", ()):
        volume = pod.volumes.ready[mount["name"]]
        source = volume.path
        below = mount.get("subPath") or expand(mount.get("subPathExpr", ""), variables)
        if below:
            if ".." in Path(below).parts or Path(below).is_absolute():
                raise ConfigError(f"subPath {below!r} must be relative and stay in its volume")
            source = source / below
            if not source.exists():
                try:
                    source.mkdir(parents=True)
                except OSError as problem:
                    raise ConfigError(f"failed to create subPath directory {below!r}: {problem}") from problem
        mounts.append(
            Mount(str(source), mount["mountPath"].rstrip("/"), volume.read_only or mount.get("readOnly", False))
        )
    return mounts


async def _found(names: Iterable[str], find: Callable[[str], Any]) -> Lookup:
    objects = {name: await find(name) for name in names}
    return objects.get


def _platform(pod: PodWorker) -> dict[str, str]:
    links = pod.spec.get("enableServiceLinks", True)
    return pod.node.platform_variables(pod.hostname, pod.namespace, links=links)


async def launch_spec(pod: PodWorker, container: Object, image: Image, termination_file: Path) -> ProcessSpec:
    """Everything the container's process needs.

    Raises:
        ConfigError: not possible now; the message is kubelet's.
    """
    secrets, config_maps = references(container)
    user, group = user_of(pod.item, container, image)
    sources = Sources(
        pod=pod.item,
        container=container,
        secret=await _found(secrets, pod.secret),
        config_map=await _found(config_maps, pod.config_map),
        pod_address=pod.address,
        host_address=pod.node.address,
        capacity=pod.node.capacity,
    )
    variables = variables_of(sources, image, _platform(pod))
    if image.bind_variable:
        variables[image.bind_variable] = pod.address
    command = command_line(container, image, variables)
    mounts = volume_mounts(pod, container, variables)
    directory = container.get("workingDir") or image.directory
    isolate = pod.node.isolate
    message_path = container.get("terminationMessagePath") or "/dev/termination-log"
    mounts.append(Mount(str(termination_file), message_path, False))
    if isolate:
        mounts.append(Mount(str(pod.hosts_file), "/etc/hosts", False))
    else:
        command = [rewrite(part, mounts) for part in command]
        variables = {name: rewrite(value, mounts) for name, value in variables.items()}
        directory = rewrite(directory, mounts)
        variables |= _kubeconfig_variable(pod, mounts)
    return ProcessSpec(
        command=command,
        environment=variables,
        directory=directory,
        user=user,
        group=group,
        hostname=pod.hostname,
        mounts=mounts,
        keep=_kept(image, pod.node.keep),
        read_only_root=container.get("securityContext", {}).get("readOnlyRootFilesystem", False),
        isolate=isolate,
    )


def _kept(image: Image, always: Sequence[str]) -> list[str]:
    program = image.command[0]
    return [*always, *image.paths, *([program] if program.startswith("/") else [])]


def _kubeconfig_variable(pod: PodWorker, mounts: Sequence[Mount]) -> dict[str, str]:
    """Without a mount namespace the token is not at its fixed path, so a kubeconfig says where it is."""
    token = next((mount for mount in mounts if mount.target == TOKEN_DIRECTORY), None)
    if token is None:
        return {}
    path = write_token_kubeconfig(
        pod.directory / "kubeconfig",
        server=pod.node.api.server,
        authority=Path(token.source) / "ca.crt",
        token_file=Path(token.source) / "token",
        namespace=pod.namespace,
    )
    return {"KUBECONFIG": str(path)}
