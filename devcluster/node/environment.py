"""A container's environment and command line, as a kubelet makes them. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devcluster.node.quantities import divide
from devcluster.settings import Image

Object = dict[str, Any]
Lookup = Callable[[str], Object | None]
"""A Secret or ConfigMap of the Pod's namespace by name; None when there is none."""

_VARIABLE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class ConfigError(Exception):
    """The container's configuration cannot be made now; the message is what the Pod's status shows."""


@dataclass(frozen=True)
class Sources:
    """What variables may refer to."""

    pod: Object
    container: Object
    secret: Lookup
    config_map: Lookup
    pod_address: str
    host_address: str
    capacity: Mapping[str, str]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value; `$$` is a dollar sign, and unknown names stay as they are."""

    def value(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _VARIABLE.sub(value, text)


def command_line(container: Object, image: Image, variables: Mapping[str, str]) -> list[str]:
    """Kubernetes' rule for ENTRYPOINT and CMD: `command` replaces both, `args` replaces CMD."""
    command, arguments = container.get("command"), container.get("args")
    if command:
        chosen = [*command, *(arguments or ())]
    else:
        chosen = [*image.command, *(arguments if arguments else image.arguments)]
        head = len(image.command)
        return chosen[:head] + [expand(part, variables) for part in chosen[head:]]
    return [expand(part, variables) for part in chosen]


def field_value(sources: Sources, path: str) -> str:
    """The value of a downward API field.

    Raises:
        ConfigError: the field is not one that Kubernetes offers.
    """
    metadata, spec = sources.pod["metadata"], sources.pod["spec"]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match:
        return str(metadata.get(match[1], {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.removeprefix("metadata."), {})
        return "\n".join(f'{name}="{_escaped(value)}"' for name, value in sorted(entries.items()))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": sources.pod_address,
        "status.podIPs": sources.pod_address,
        "status.hostIP": sources.host_address,
        "status.hostIPs": sources.host_address,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(sources: Sources, reference: Object) -> str:
    """The value of a resourceFieldRef: the container's request or limit; a missing limit is the node's capacity.

    Raises:
        ConfigError: the container or the resource is unknown.
    """
    container = sources.container
    wanted = reference.get("containerName")
    if wanted:
        spec = sources.pod["spec"]
        every = [*spec.get("initContainers", ()), *spec["containers"]]
        found = [candidate for candidate in every if candidate["name"] == wanted]
        if not found:
            raise ConfigError(f"container {wanted} not found")
        container = found[0]
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources", {})
    value = resources.get(kind, {}).get(name)
    if value is None:
        value = sources.capacity.get(name, "0") if kind == "limits" else resources.get("limits", {}).get(name, "0")
    return str(divide(value, reference.get("divisor", "1")))


def _from_secret(sources: Sources, reference: Object) -> str | None:
    secret = sources.secret(reference["name"])
    if secret is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'secret "{reference["name"]}" not found')
    data = secret.get("data", {})
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        namespace = sources.pod["metadata"]["namespace"]
        raise ConfigError(f"couldn't find key {reference['key']} in Secret {namespace}/{reference['name']}")
    return base64.b64decode(data[reference["key"]]).decode(errors="surrogateescape")


def _from_config_map(sources: Sources, reference: Object) -> str | None:
    config_map = sources.config_map(reference["name"])
    if config_map is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'configmap "{reference["name"]}" not found')
    data = config_map.get("data", {})
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        namespace = sources.pod["metadata"]["namespace"]
        raise ConfigError(f"couldn't find key {reference['key']} in ConfigMap {namespace}/{reference['name']}")
    return str(data[reference["key"]])


def _value_from(sources: Sources, source: Object) -> str | None:
    if "secretKeyRef" in source:
        return _from_secret(sources, source["secretKeyRef"])
    if "configMapKeyRef" in source:
        return _from_config_map(sources, source["configMapKeyRef"])
    if "fieldRef" in source:
        return field_value(sources, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(sources, source["resourceFieldRef"])
    raise ConfigError(f"unsupported source of a variable: {', '.join(source)}")


def _env_from(sources: Sources, entries: Sequence[Object]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for entry in entries:
        prefix = entry.get("prefix", "")
        if "secretRef" in entry:
            reference, found, what = entry["secretRef"], sources.secret(entry["secretRef"]["name"]), "secret"
        else:
            reference, found = entry["configMapRef"], sources.config_map(entry["configMapRef"]["name"])
            what = "configmap"
        if found is None:
            if reference.get("optional"):
                continue
            raise ConfigError(f'{what} "{reference["name"]}" not found')
        for key, value in found.get("data", {}).items():
            text = base64.b64decode(value).decode(errors="surrogateescape") if what == "secret" else value
            variables[prefix + key] = text
    return variables


def variables_of(sources: Sources, image: Image, platform: Mapping[str, str]) -> dict[str, str]:
    """All variables of a container.

    In rising precedence: the image's, the platform's (`KUBERNETES_SERVICE_HOST`…), `envFrom`, `env`.

    Raises:
        ConfigError: a Secret, ConfigMap, key or field is missing.
    """
    variables = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/",
        **image.environment,
        **platform,
    }
    variables |= _env_from(sources, sources.container.get("envFrom", ()))
    for entry in sources.container.get("env", ()):
        if "valueFrom" in entry:
            value = _value_from(sources, entry["valueFrom"])
            if value is not None:
                variables[entry["name"]] = value
        else:
            variables[entry["name"]] = expand(entry.get("value", ""), variables)
    return variables
