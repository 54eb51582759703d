"""Reads one EmbeddingService and everything around it from the API server and the Pods into a `Snapshot`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import CORE_EVENTS, EMBEDDING_SERVICES, PODS, Resource
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.cluster import Object as ClusterObject
from embedding_operator.observe.mirror import Mirror
from embedding_operator.observe.pods import (
    belongs_to,
    may_fail_probes,
    pod_state,
    waits_without_reason,
    warning_messages,
)
from embedding_operator.observe.polling import Poller
from embedding_operator.observe.snapshot import Object, PodState, Snapshot


@dataclass(frozen=True, slots=True)
class Interest:
    """What has to be looked at for one service beside the resource itself."""

    children: Sequence[tuple[Resource, str]]
    """Kinds and names of the objects it may own."""
    port: int


@dataclass(slots=True)
class Observer:
    """The only reader of the cluster. Raises ClusterError when the API server cannot be read.

    A look is either `live`, everything read from the API server now, or taken from the mirror, which costs no request.
    A kind that may not be read is noted in the snapshot, and hides nothing of the others.
    """

    cluster: ClusterClient
    mirror: Mirror
    poller: Poller
    now: Callable[[], datetime]

    async def resource(self, namespace: str, name: str, *, live: bool) -> ClusterObject | None:
        """The EmbeddingService, or None when it is gone."""
        if not live and (known := self.mirror.get(EMBEDDING_SERVICES, namespace, name)) is not None:
            return known
        found = await self.cluster.get(EMBEDDING_SERVICES, namespace, name)
        if found is not None:
            self.mirror.learn(EMBEDDING_SERVICES, found)
        return found

    async def snapshot(self, resource: Object, interest: Interest, *, live: bool) -> Snapshot:
        """Look at everything once."""
        namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
        unread: dict[tuple[str, str], str] = {}
        looks = (self._child(kind, namespace, child, unread, live=live) for kind, child in interest.children)
        found = zip(interest.children, await asyncio.gather(*looks), strict=True)
        children: dict[tuple[str, str, str], Object] = {
            (kind.api_version, kind.kind, child): there for (kind, child), there in found if there is not None
        }
        pods = await self._pods(namespace, name, unread, live=live)
        own = [pod for pod in pods if belongs_to(pod, name)]
        readings = await self.poller.readings((namespace, name), own, port=interest.port)
        return Snapshot(
            resource=resource, now=self.now(), children=children, pods=pods, readings=readings, unread=unread
        )

    async def _child(
        self, kind: Resource, namespace: str, name: str, unread: dict[tuple[str, str], str], *, live: bool
    ) -> ClusterObject | None:
        if not live:
            if (why := self.mirror.unread(kind, namespace)) is not None:
                unread[kind.api_version, kind.kind] = why
                return None
            return self.mirror.get(kind, namespace, name)
        try:
            found = await self.cluster.get(kind, namespace, name)
        except ClusterError as error:
            _note(error, kind, unread)
            return None
        if found is not None:
            self.mirror.learn(kind, found)
        return found

    async def _pods(
        self, namespace: str, name: str, unread: dict[tuple[str, str], str], *, live: bool
    ) -> tuple[PodState, ...]:
        # Pods are only looked at, never written: where they are followed, there is no need to list them.
        why = self.mirror.unread(PODS, namespace)
        if not live and why is not None:
            unread[PODS.api_version, PODS.kind] = why
            return ()
        if live and (why is not None or not self.mirror.fresh(namespace)):
            try:
                objects, _ = await self.cluster.list(PODS, namespace, labels=f"{SERVICE_LABEL}={name}")
            except ClusterError as error:
                _note(error, PODS, unread)
                return ()
            pods = [pod_state(pod) for pod in objects]
        else:
            pods = list(self.mirror.pods(namespace, name))
        for index, pod in enumerate(pods):
            if waits_without_reason(pod) or may_fail_probes(pod):
                pods[index] = replace(pod, warnings=await self._warnings(namespace, pod))
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


def _note(error: ClusterError, kind: Resource, unread: dict[tuple[str, str], str]) -> None:
    """Remember a kind that may not be read; any other failure is raised again."""
    if not error.forbidden:
        raise error
    unread[kind.api_version, kind.kind] = error.message
