"""Which Pods answer for a Service, and on which ports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Target = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True)
class Backend:
    """One Pod behind a Service."""

    name: str
    uid: str
    node: str
    address: str
    ready: bool
    serving: bool
    terminating: bool
    ports: Mapping[str, int]
    """Service port name (empty for a nameless one) to the number of the Pod's port."""


def selects(selector: Mapping[str, str], pod: Object) -> bool:
    """Whether a Service's selector matches a Pod."""
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in selector.items())


def target_port(port: Object, pod: Object) -> int | None:
    """The Pod's port that a Service port leads to; None when the Pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target or int(port["port"])
    every = [*pod["spec"]["containers"]]
    every += [c for c in pod["spec"].get("initContainers", ()) if c.get("restartPolicy") == "Always"]
    for container in every:
        for candidate in container.get("ports", ()):
            same_protocol = candidate.get("protocol", "TCP") == port.get("protocol", "TCP")
            if candidate.get("name") == target and same_protocol:
                return int(candidate["containerPort"])
    return None


def backends(service: Object, pods: Iterable[Object]) -> list[Backend]:
    """The Pods of a Service that have an address and are not over, in a stable order."""
    selector = service["spec"].get("selector")
    if not selector:
        return []
    publish = service["spec"].get("publishNotReadyAddresses", False)
    found = []
    for pod in pods:
        status = pod.get("status", {})
        address = status.get("podIP")
        if pod["metadata"]["namespace"] != service["metadata"]["namespace"] or not selects(selector, pod):
            continue
        if not address or status.get("phase") in ("Succeeded", "Failed"):
            continue
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
        serving = publish or conditions.get("Ready") == "True"
        terminating = "deletionTimestamp" in pod["metadata"]
        ports = {}
        for port in service["spec"].get("ports", ()):
            number = target_port(port, pod)
            if number is not None:
                ports[port.get("name", "")] = number
        found.append(
            Backend(
                name=pod["metadata"]["name"],
                uid=pod["metadata"]["uid"],
                node=pod["spec"].get("nodeName", ""),
                address=address,
                ready=publish or (serving and not terminating),
                serving=serving,
                terminating=terminating,
                ports=ports,
            )
        )
    return sorted(found, key=lambda backend: backend.uid)


class Lingering:
    """The targets of one Service port as kube-proxy has them: new ones at once, those gone only after a delay."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._now: list[Target] = []
        self._until: dict[Target, float] = {}

    def update(self, fresh: Sequence[Target], moment: float) -> None:
        """The Pods have changed; `moment` is in monotonic seconds."""
        for gone in set(self._now) - set(fresh):
            self._until[gone] = moment + self._delay
        self._now = list(fresh)

    def at(self, moment: float) -> list[Target]:
        """The targets of a connection that begins at `moment`."""
        self._until = {target: end for target, end in self._until.items() if end > moment and target not in self._now}
        return [*self._now, *self._until]


def targets(found: Sequence[Backend], port_name: str) -> list[Target]:
    """Address and port of the Pods that get new connections.

    Like kube-proxy: ready ones; when there is none, those that terminate but still serve.
    """
    usable = [backend for backend in found if port_name in backend.ports]
    chosen = [backend for backend in usable if backend.ready]
    chosen = chosen or [backend for backend in usable if backend.serving and backend.terminating]
    return [(backend.address, backend.ports[port_name]) for backend in chosen]
