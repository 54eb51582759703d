"""Reads one EmbeddingService and everything around it from the API server and the Pods into a `Snapshot`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import CORE_EVENTS, EMBEDDING_SERVICES, PODS, Resource
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.cluster import Object as ClusterObject
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.pods import (
    belongs_to,
    may_fail_probes,
    pod_state,
    waits_without_reason,
    warning_messages,
)
from embedding_operator.observe.snapshot import Object, PodState, Snapshot


@dataclass(frozen=True, slots=True)
class Interest:
    """What has to be looked at for one service beside the resource itself."""

    children: Sequence[tuple[Resource, str]]
    """Kinds and names of the objects it may own."""
    port: int
    tls: bool


@dataclass(slots=True)
class Observer:
    """The only reader of the cluster. Raises ClusterError when the API server cannot be read."""

    cluster: ClusterClient
    endpoints: EndpointReader
    now: Callable[[], datetime]

    async def resource(self, namespace: str, name: str) -> ClusterObject | None:
        """The EmbeddingService, or None when it is gone."""
        return await self.cluster.get(EMBEDDING_SERVICES, namespace, name)

    async def snapshot(self, resource: Object, interest: Interest) -> Snapshot:
        """Look at everything once."""
        namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
        children: dict[tuple[str, str, str], Object] = {}
        for kind, child in interest.children:
            live = await self.cluster.get(kind, namespace, child)
            if live is not None:
                children[(kind.api_version, kind.kind, child)] = live
        pods = await self._pods(namespace, name)
        own = [pod for pod in pods if belongs_to(pod, name)]
        return Snapshot(
            resource=resource,
            now=self.now(),
            children=children,
            pods=pods,
            readings=await self.endpoints.read_all(own, port=interest.port, tls=interest.tls),
        )

    async def _pods(self, namespace: str, name: str) -> tuple[PodState, ...]:
        objects, _ = await self.cluster.list(PODS, namespace, labels=f"{SERVICE_LABEL}={name}")
        pods = []
        for live in objects:
            pod = pod_state(live)
            if waits_without_reason(pod) or may_fail_probes(pod):
                pod = pod_state(live, await self._warnings(namespace, pod))
            pods.append(pod)
        return tuple(pods)

    async def _warnings(self, namespace: str, pod: PodState) -> tuple[str, ...]:
        """What events say about a Pod; empty when events may not be read: they only add words."""
        try:
            events, _ = await self.cluster.list(CORE_EVENTS, namespace, fields=f"involvedObject.uid={pod.uid}")
        except ClusterError as error:
            if error.forbidden:
                return ()
            raise
        return warning_messages(events)
