"""Parts of the spec that shape Pods and the objects around them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .borrowed import Affinity, Container, NetworkPolicyPeer, Toleration, TopologySpreadConstraint, Volume, VolumeMount
from .common import Annotations, Labels, Name
from .constants import CONTAINER_NAME, GROUP, RESERVED_MOUNT_PATHS, RESERVED_VOLUMES
from .quantity import Quantity

ATOMIC = Schema({"x-kubernetes-list-type": "atomic"})


def map_list(*keys: str) -> Schema:
    """A list whose entries are told apart by `keys`."""
    return Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


class Resources(ApiModel):
    """Compute resources of the runtime container. The accelerator is not named here."""

    limits: Annotated[dict[str, Quantity], Field(max_length=32)] = {}
    """Most of each resource that the container may use."""

    requests: Annotated[dict[str, Quantity], Field(max_length=32)] = {}
    """What the scheduler reserves of each resource. Default: the limit."""


class ServiceType(StrEnum):
    """How the Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceSettings(ApiModel):
    """The Service in front of the Pods; it has the name of the EmbeddingService."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP: inside the cluster. NodePort, LoadBalancer: from outside too."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the Service. Pods always listen on 8000."""

    labels: Labels = {}
    """Further labels of the Service."""

    annotations: Annotations = {}
    """Annotations of the Service."""


class RolloutStrategy(StrEnum):
    """How old Pods are replaced by new ones."""

    AUTO = "Auto"
    SURGE = "Surge"
    MAX_UNAVAILABLE = "MaxUnavailable"
    RECREATE = "Recreate"


class Rollout(ApiModel):
    """How a changed Pod template is rolled out."""

    strategy: RolloutStrategy = RolloutStrategy.AUTO
    """Surge: one Pod more during a rollout, none less. MaxUnavailable: one Pod less, none more. Recreate: stop all,
    then start all. Auto: Surge, and MaxUnavailable for a rollout whose new Pod finds no free accelerator."""


class Authentication(ApiModel):
    """Bearer keys for the API. Health, metrics and model metadata stay open."""

    api_keys_secret_ref: SecretReference
    """Secret of keys."""


class SecretReference(ApiModel):
    """A Secret whose every entry is one key: its name is the client's name, its content the key. An entry limits.yaml
    may hold requests and tokens per minute for each client."""

    name: Name
    """Name of the Secret. Changed keys are picked up without a restart."""


class Scheduling(ApiModel):
    """Where Pods may run. Every field means what it means in a Pod."""

    node_selector: Labels = {}
    """Labels a node must have."""

    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64), ATOMIC] = ()
    """Taints that Pods tolerate."""

    affinity: Affinity | None = None
    """Rules of attraction and repulsion to nodes and Pods."""

    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16), ATOMIC] = ()
    """How Pods spread over zones and nodes. Without a labelSelector the Pods of this EmbeddingService are meant."""

    priority_class_name: Name | None = None
    """PriorityClass of the Pods."""

    runtime_class_name: Name | None = None
    """RuntimeClass of the Pods, such as nvidia."""

    scheduler_name: Name | None = None
    """Scheduler of the Pods. Default: the cluster's default scheduler."""


def _privileged(containers: Iterable[dict[str, Any]]) -> bool:
    return any((container.get("securityContext") or {}).get("privileged") for container in containers)


def _names(entries: Iterable[dict[str, Any]]) -> set[str]:
    return {str(entry.get("name")) for entry in entries}


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
            cel="!has(self.volumeMounts) || "
            f"self.volumeMounts.all(m, !(m.mountPath in {list(RESERVED_MOUNT_PATHS)!r}))",
            message=f"mount paths {', '.join(RESERVED_MOUNT_PATHS)} are the operator's; use another",
            holds=lambda it: all(mount.get("mountPath") not in RESERVED_MOUNT_PATHS for mount in it.volume_mounts),
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
            cel=f"!has(self.labels) || self.labels.all(key, !key.startsWith('{GROUP}/'))",
            message=f"labels that begin with {GROUP}/ are the operator's; use another prefix",
            holds=lambda it: not any(key.startswith(f"{GROUP}/") for key in it.labels),
        ),
    )

    labels: Labels = {}
    """Further labels of the Pods."""

    annotations: Annotations = {}
    """Annotations of the Pods."""

    volumes: Annotated[tuple[Volume, ...], Field(max_length=32), map_list("name")] = ()
    """Further volumes. hostPath is refused."""

    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32), map_list("mountPath")] = ()
    """Further mounts of the runtime container."""

    init_containers: Annotated[tuple[Container, ...], Field(max_length=8), map_list("name")] = ()
    """Containers that run before the runtime starts. They get the runtime's security context where they state none."""

    sidecars: Annotated[tuple[Container, ...], Field(max_length=8), map_list("name")] = ()
    """Containers beside the runtime. They get the runtime's security context where they state none."""


class DisruptionBudget(ApiModel):
    """The PodDisruptionBudget of the Pods."""

    enabled: bool = True
    """Create the budget."""

    max_unavailable: Annotated[
        int | str,
        Schema(
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                "pattern": "^(100|[1-9]?[0-9])%$",
            }
        ),
    ] = 1
    """How many Pods, or what share of them (50%), a voluntary disruption may take away at once."""


class NetworkPolicySettings(ApiModel):
    """The NetworkPolicy of the Pods."""

    enabled: bool = False
    """Admit only what allowFrom names, the operator, and the probes of the kubelet."""

    allow_from: Annotated[tuple[NetworkPolicyPeer, ...], Field(max_length=64), ATOMIC] = ()
    """Who may reach the API. With none, only the operator and the kubelet may."""


class ServiceMonitorSettings(ApiModel):
    """A ServiceMonitor for the Prometheus operator, which must be installed."""

    enabled: bool = False
    """Create the ServiceMonitor."""

    labels: Labels = {}
    """Labels by which Prometheus selects the ServiceMonitor."""

    interval: Annotated[str, Field(max_length=16, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")] = "30s"
    """Time between two scrapes, such as 30s or 1m."""


class Alerts(ApiModel):
    """A PrometheusRule for the Prometheus operator, which must be installed."""

    enabled: bool = False
    """Create the PrometheusRule."""

    labels: Labels = {}
    """Labels by which Prometheus selects the PrometheusRule."""


class Dashboard(ApiModel):
    """A ConfigMap with a Grafana dashboard, for Grafana's dashboard sidecar."""

    enabled: bool = False
    """Create the ConfigMap."""

    labels: Labels = {"grafana_dashboard": "1"}
    """Labels by which the sidecar selects the ConfigMap."""


class Monitoring(ApiModel):
    """Objects for Prometheus and Grafana."""

    service_monitor: ServiceMonitorSettings = ServiceMonitorSettings()
    """Scrape the runtime's metrics."""

    alerts: Alerts = Alerts()
    """Alert on what users would notice."""

    dashboard: Dashboard = Dashboard()
    """Show what the runtime does."""


class VectorSpace(ApiModel):
    """The vector space this endpoint promises."""

    expected_fingerprint: Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Fingerprint the model must have, as status.model.fingerprint shows it. A Pod with any other never becomes ready,
    so that old and new vectors never mix behind one name."""
