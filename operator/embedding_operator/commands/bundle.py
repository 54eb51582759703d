"""A support bundle: everything somebody else needs to understand what is wrong with a service, and no secrets."""

from __future__ import annotations

import io
import os
import platform
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from embedding_operator.api.constants import (
    HEALTH_READY_PATH,
    MANIFEST_PATH,
    METRICS_PATH,
    RUNTIME_PORT,
    SERVICE_LABEL,
)
from embedding_operator.api.kinds import (
    CHILD_KINDS,
    CORE_EVENTS,
    DEPLOYMENTS,
    EMBEDDING_SERVICES,
    LEASES,
    PODS,
    Resource,
)
from embedding_operator.cluster import ClusterClient, ClusterError, Object
from embedding_operator.commands.installed import OPERATOR_LABEL
from embedding_operator.commands.redaction import Redactor
from embedding_operator.commands.status import page
from embedding_operator.observe.pods import pod_state

LOG_LINES: Final = 5000
LOG_BYTES: Final = 2 << 20
LOG_SECONDS: Final = 60.0
OPERATOR_PORT: Final = 8080
DIRECT_SECONDS: Final = 3.0

README: Final = """\
Support bundle of embedding-operator, made {moment} by embedding-operator {version}.

  versions.yaml                     the API server, the operator's packages
  NAMESPACE/NAME/status.txt         the page of `embedding-operator status`
  NAMESPACE/NAME/*.yaml             the EmbeddingService, its children, their Events
  NAMESPACE/NAME/pods/POD/          the Pod, each container's log and, where it was restarted, the log before that
                                    (previous), and what the runtime itself answers: ready, manifest, metrics
  operator/                         the operator's Deployment, Lease, Pods, logs and metrics

Secrets were not read: what refers to one shows its name. Literal values of variables, flags, annotations, entries and
headers whose names look secret, tokens of known kinds, passwords in URLs and private keys were replaced by (redacted),
wherever they appear. Names of models, images, hosts and users, and whatever programs wrote into their logs otherwise,
are as they were: look through the bundle before you give it away. Of each log the last lines are here, 2 MiB at most.

{missing}
"""


@dataclass(slots=True)
class Bundle:
    """Files by path, and what could not be read."""

    say: Callable[[str], None]
    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)

    async def attempt(self, what: str, question: Awaitable[Any]) -> Any:
        """The answer, or None when there is none; a failure is noted in the bundle and ends nothing."""
        try:
            return await question
        except ClusterError as error:
            self.missing.append(f"{what}: {error.message}")
            return None

    def pack(self) -> bytes:
        """The bundle as a tar.gz, everything in one directory. Secrets are taken out here, from all of it at once."""
        redactor = Redactor()
        for content in self.objects.values():
            redactor.learn(content)
        texts = {
            path: yaml.safe_dump(redactor.object(content), sort_keys=False, width=120, allow_unicode=True)
            for path, content in self.objects.items()
        }
        texts |= {path: redactor.text(text) for path, text in self.files.items()}
        missing = "\n".join(f"  {redactor.text(line)}" for line in self.missing)
        texts["README.txt"] = README.format(
            moment=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("embedding-operator"),
            missing=f"Could not be read:\n\n{missing}" if missing else "Everything could be read.",
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, text in sorted(texts.items()):
                content = text.encode()
                entry = tarfile.TarInfo(f"embedding-operator-bundle/{path}")
                entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


async def collect(
    cluster: ClusterClient, namespace: str, name: str | None, operator_namespace: str, say: Callable[[str], None]
) -> Bundle:
    """Everything about one service of a namespace, or all of them (`name` None), and the operator.

    Raises ClusterError only when the services themselves cannot be listed.
    """
    bundle = Bundle(say)
    services, _ = await cluster.list(EMBEDDING_SERVICES, namespace, fields=f"metadata.name={name}" if name else None)
    bundle.objects["versions.yaml"] = await _versions(cluster, bundle)
    for service in services:
        say(f"{namespace}/{service['metadata']['name']}")
        await _service(cluster, bundle, service)
    if name is not None and not services:
        bundle.missing.append(f"there is no EmbeddingService {namespace}/{name}")
    say(f"the operator in {operator_namespace}")
    await _operator(cluster, bundle, operator_namespace)
    return bundle


async def _versions(cluster: ClusterClient, bundle: Bundle) -> dict[str, Any]:
    packages = ("embedding-operator", "kopf", "kubernetes", "pydantic")
    server = await bundle.attempt("the API server's version", cluster.text("/version"))
    return {
        "apiServer": yaml.safe_load(server) if server else None,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


async def _service(cluster: ClusterClient, bundle: Bundle, service: Object) -> None:
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    place, label = f"{namespace}/{name}", f"{SERVICE_LABEL}={name}"
    bundle.objects[f"{place}/embeddingservice.yaml"] = service
    names = {name}
    for kind in (*CHILD_KINDS, Resource("apps/v1", "ReplicaSet", "replicasets")):
        found = await bundle.attempt(
            f"{kind.plural} of {place}", _optional(cluster.list(kind, namespace, labels=label))
        )
        for child in found or ():
            names.add(child["metadata"]["name"])
            bundle.objects[f"{place}/{kind.kind.lower()}-{child['metadata']['name']}.yaml"] = _named(kind, child)
    pods = await bundle.attempt(f"Pods of {place}", _items(cluster.list(PODS, namespace, labels=label))) or []
    bundle.files[f"{place}/status.txt"] = page(service, [pod_state(pod) for pod in pods], datetime.now(UTC)) + "\n"
    for pod in pods:
        names.add(pod["metadata"]["name"])
        where = f"{place}/pods/{pod['metadata']['name']}"
        await _pod(cluster, bundle, pod, where)
        answers = {"ready.json": HEALTH_READY_PATH, "manifest.json": MANIFEST_PATH, "metrics.txt": METRICS_PATH}
        await _endpoints(cluster, bundle, pod, where, RUNTIME_PORT, answers, tls=pod_state(pod).tls)
    events = await bundle.attempt(f"Events of {place}", _items(cluster.list(CORE_EVENTS, namespace))) or []
    about = [event for event in events if (event.get("involvedObject") or {}).get("name") in names]
    bundle.objects[f"{place}/events.yaml"] = about


async def _operator(cluster: ClusterClient, bundle: Bundle, namespace: str) -> None:
    for kind, labels in ((DEPLOYMENTS, OPERATOR_LABEL), (LEASES, None)):
        listing = cluster.list(kind, namespace, labels=labels)
        for found in await bundle.attempt(f"{kind.plural} of the operator", _items(listing)) or ():
            path = f"operator/{kind.kind.lower()}-{found['metadata']['name']}.yaml"
            bundle.objects[path] = _named(kind, found)
    pods = cluster.list(PODS, namespace, labels=OPERATOR_LABEL)
    found_pods = await bundle.attempt("Pods of the operator", _items(pods))
    if found_pods == []:
        bundle.missing.append(f"no Pod of the operator is in {namespace}: name its namespace by --operator-namespace")
    for pod in found_pods or ():
        where = f"operator/pods/{pod['metadata']['name']}"
        await _pod(cluster, bundle, pod, where)
        await _endpoints(cluster, bundle, pod, where, OPERATOR_PORT, {"metrics.txt": "/metrics"}, tls=False)


async def _pod(cluster: ClusterClient, bundle: Bundle, pod: Object, where: str) -> None:
    """The Pod and its containers' logs."""
    bundle.say(f"  {where.rpartition('/')[2]}")
    bundle.objects[f"{where}/pod.yaml"] = _named(PODS, pod)
    metadata, status = pod["metadata"], pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        name = container["name"]
        runs = [("", False)] if "waiting" not in (container.get("state") or {}) else []
        if container.get("restartCount"):
            runs = [("", False), (".previous", True)]
        for suffix, previous in runs:
            query: dict[str, str | int | None] = {
                "container": name,
                "previous": "true" if previous else None,
                # Not limitBytes beside it: that cuts off the end, which tells what happened.
                "tailLines": LOG_LINES,
            }
            path = PODS.path(metadata["namespace"], metadata["name"], "log")
            question = cluster.text(path, query, last_bytes=LOG_BYTES, timeout=LOG_SECONDS)
            text = await bundle.attempt(f"log of {where} {name}{suffix}", question)
            if text is not None:
                bundle.files[f"{where}/{name}{suffix}.log"] = text


async def _endpoints(
    cluster: ClusterClient, bundle: Bundle, pod: Object, where: str, port: int, files: Mapping[str, str], *, tls: bool
) -> None:
    """What the Pod itself answers: through the API server, or straight where that is not let through."""
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        return
    scheme, name = ("https" if tls else "http"), pod["metadata"]["name"]
    for file, path in files.items():
        proxied = PODS.path(pod["metadata"]["namespace"], f"{scheme}:{name}:{port}", "proxy") + path
        try:
            bundle.files[f"{where}/{file}"] = await cluster.text(proxied, accept_any=True)
        except ClusterError as error:
            host = f"[{address}]" if ":" in address else address
            text = await _straight(f"{scheme}://{host}:{port}{path}")
            if text is None:
                bundle.missing.append(f"{where}/{file}: {error.message}")
            else:
                bundle.files[f"{where}/{file}"] = text


async def _straight(url: str) -> str | None:
    timeout = aiohttp.ClientTimeout(total=DIRECT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as response:
            return (await response.content.read(LOG_BYTES)).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


async def _items(listing: Awaitable[tuple[list[Object], str]]) -> list[Object]:
    return (await listing)[0]


async def _optional(listing: Awaitable[tuple[list[Object], str]]) -> list[Object]:
    """Of a kind that may not be installed there is nothing."""
    try:
        return await _items(listing)
    except ClusterError as error:
        if error.not_found:
            return []
        raise


def _named(kind: Resource, found: Object) -> Object:
    """Lists leave out what kind of thing their items are."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, **found}


def write(bundle: Bundle, path: Path) -> None:
    """Write the archive, readable by its owner alone. Raises OSError; an existing file is not replaced."""
    with open(path, "xb", opener=_private) as file:
        file.write(bundle.pack())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def default_path(namespace: str, names: Iterable[str | None]) -> Path:
    """A name that says what is in it and when it was made."""
    what = "-".join([namespace, *(name for name in names if name)])
    return Path(f"embedding-operator-{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
