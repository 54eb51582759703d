"""Which Pods belong to autoscaled services, kept up to date by list and watch on every replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import EMBEDDING_SERVICES, PODS
from embedding_operator.cluster import ClusterClient, ClusterError, Object
from embedding_operator.observe.follow import follow, key_of
from embedding_operator.observe.pods import may_be_asked, pod_state
from embedding_operator.observe.snapshot import PodState

Kept = TypeVar("Kept")


@dataclass(slots=True)
class Table(Generic[Kept]):
    """Objects of one kind by (namespace, name), each reduced to what is needed of it; None is not kept."""

    reduce: Callable[[Object], Kept | None]
    entries: dict[tuple[str, str], Kept] = field(default_factory=dict)
    filled: bool = False

    def put(self, live: Object, *, gone: bool = False) -> None:
        """This one is there, new, changed or gone."""
        key = key_of(live)
        kept = None if gone else self.reduce(live)
        if kept is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = kept

    def keep(self, keys: Set[tuple[str, str]]) -> None:
        """These are all there are."""
        self.entries = {key: kept for key, kept in self.entries.items() if key in keys}
        self.filled = True

    def heard(self) -> None:
        """Figures have times of their own: how old a table is matters to nobody."""

    def refused(self, error: ClusterError) -> None:
        """What is known stands: Pods are asked all the same."""


@dataclass(frozen=True, slots=True)
class Autoscaled:
    """What must be known of a service to ask its Pods."""

    tls: bool


@dataclass(frozen=True, slots=True)
class KnownPod:
    state: PodState
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """One Pod of an autoscaled service. `ip` is None when there is nothing that could be asked."""

    namespace: str
    name: str
    uid: str
    ip: str | None
    tls: bool
    labels: Mapping[str, str]


def autoscaled(service: Mapping[str, Any]) -> Autoscaled | None:
    """None for a service without autoscaling. Read from the raw resource: one invalid field elsewhere is no reason."""
    spec = service.get("spec") or {}
    if spec.get("autoscaling") is None:
        return None
    return Autoscaled(tls=(spec.get("runtime") or {}).get("tls") is not None)


def known_pod(pod: Object) -> KnownPod:
    return KnownPod(pod_state(pod), dict(pod["metadata"].get("labels") or {}))


class Directory:
    """The Pods of autoscaled services. `run` keeps it true until it is cancelled."""

    def __init__(self) -> None:
        self.services: Table[Autoscaled] = Table(autoscaled)
        self.pods: Table[KnownPod] = Table(known_pod)

    @property
    def filled(self) -> bool:
        """Whether everything has been seen once; before that nothing can be said of what is missing."""
        return self.services.filled and self.pods.filled

    def targets(self) -> list[Target]:
        """Every Pod of an autoscaled service that is not on its way out."""
        found = []
        for (namespace, name), pod in self.pods.entries.items():
            service = self.services.entries.get((namespace, pod.labels.get(SERVICE_LABEL, "")))
            if service is None or pod.state.terminating:
                continue
            ip = pod.state.ip if may_be_asked(pod.state) else None
            found.append(Target(namespace, name, pod.state.uid, ip, service.tls, pod.labels))
        return found

    async def run(self, cluster: ClusterClient) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(cluster, EMBEDDING_SERVICES, None, self.services))
            group.create_task(follow(cluster, PODS, SERVICE_LABEL, self.pods))
