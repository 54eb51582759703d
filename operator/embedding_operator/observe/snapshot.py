"""One frozen picture of everything a decision about one EmbeddingService rests on. Data only; no I/O, no judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container of a Pod, as its kubelet reports it."""

    name: str
    init: bool
    ready: bool
    restarts: int
    image: str
    image_id: str
    waiting_reason: str | None = None
    waiting_message: str = ""
    running_since: datetime | None = None
    terminated_reason: str | None = None
    """Why the container is not running now, or stopped the last time it ran (`OOMKilled`, `Error`, `Completed`)."""
    exit_code: int | None = None
    ended_at: datetime | None = None
    """When it stopped the last time."""
    termination_message: str = ""
    """The termination message, or the last log lines where the container left none (FallbackToLogsOnError)."""
    started: bool = False


@dataclass(frozen=True, slots=True)
class PodState:
    """One Pod of the service."""

    name: str
    uid: str
    ip: str | None
    phase: str
    created: datetime
    template_hash: str
    replica_set: str
    """Name of the ReplicaSet that controls the Pod; empty when none does."""
    ready: bool
    terminating: bool
    scheduled: bool
    deletion_due: datetime | None = None
    """By when a Pod that is being deleted should have ended: its deletionTimestamp, which includes the grace period."""
    scheduling_reason: str = ""
    scheduling_message: str = ""
    ready_since: datetime | None = None
    ready_reason: str = ""
    """Why the Pod is not ready, in its kubelet's word; empty when somebody else says so (the node's controller)."""
    ready_message: str = ""
    containers_ready: bool = False
    """Whether its kubelet last called all containers ready."""
    node: str | None = None
    requests: Mapping[str, Fraction] = field(default_factory=dict)
    """What the scheduler reserves for it of each resource, in the resource's own unit (cores, bytes, devices)."""
    claim_templates: frozenset[str] = frozenset()
    """Names of the ResourceClaimTemplates that its devices are claimed by."""
    volume_claims: frozenset[str] = frozenset()
    """Names of the PersistentVolumeClaims that it mounts."""
    status_reason: str = ""
    """The Pod's own `status.reason`, e.g. `Evicted` or `NodeLost`."""
    status_message: str = ""
    containers: tuple[ContainerState, ...] = ()
    tls: bool = False
    """Whether its runtime speaks HTTPS: what its own probes use, whatever the spec says by now."""
    labels: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What events say is wrong with this Pod, newest first; read only where its status does not say it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one Pod's runtime answered. `error` says why nothing could be read; the rest is None then."""

    ready: bool | None = None
    message: str = ""
    manifest: Object | None = None
    metrics: RuntimeMetrics | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RuntimeMetrics:
    """The figures of `/v1/metrics` that a decision or the status uses."""

    utilization: float
    """Demand over capacity; 1.0 is saturated."""
    tokens_total: float
    """Tokens embedded since the process started."""
    queued_tokens: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known about one EmbeddingService at one moment."""

    resource: Object
    """The EmbeddingService itself, as the API server holds it."""
    now: datetime
    children: Mapping[tuple[str, str, str], Object] = field(default_factory=dict)
    """Live objects by (apiVersion, kind, name), whoever owns them."""
    pods: tuple[PodState, ...] = ()
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """By Pod name; only Pods that have an address and a running container were asked."""
    unread: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Kinds, as (apiVersion, kind), that could not be read, with the API server's own words. That none of such a kind
    is here says nothing about what there is."""

    @property
    def name(self) -> str:
        return str(self.resource["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.resource["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.resource["metadata"]["uid"])

    @property
    def generation(self) -> int:
        return int(self.resource["metadata"]["generation"])

    def child(self, api_version: str, kind: str, name: str) -> Object | None:
        return self.children.get((api_version, kind, name))

    def is_unread(self, body: Object) -> bool:
        """Whether objects of this one's kind could not be read."""
        return (body["apiVersion"], body["kind"]) in self.unread

    @property
    def pods_unread(self) -> str | None:
        """Why the Pods could not be read; None when they were."""
        return self.unread.get(("v1", "Pod"))

    @property
    def deployment(self) -> Object | None:
        """The service's own Deployment; None when there is none or the one of that name belongs to somebody else."""
        live = self.child("apps/v1", "Deployment", self.name)
        return live if live is not None and is_controlled_by(live, self.uid) else None

    @property
    def autoscaler(self) -> Object | None:
        live = self.child("autoscaling/v2", "HorizontalPodAutoscaler", self.name)
        return live if live is not None and is_controlled_by(live, self.uid) else None


def is_controlled_by(live: Object, uid: str) -> bool:
    """Whether `live` has a controller owner reference to the object with this uid."""
    references = live.get("metadata", {}).get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)
