"""Parts of the spec that shape Pods and the objects around them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .borrowed import Affinity, NetworkPolicyPeer, Toleration, TopologySpreadConstraint
from .common import Annotations, Labels, Name
from .quantity import ResourceQuantity, amount

ATOMIC = Schema({"x-kubernetes-list-type": "atomic"})


COMPARED_RESOURCES = ("cpu", "memory", "ephemeral-storage")


class Resources(ApiModel):
    """Compute resources of the runtime container. The accelerator is not named here."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            # A fixed list of names, because comparing every entry would exceed the cost that the API server allows.
            cel=f"!has(self.requests) || !has(self.limits) || {list(COMPARED_RESOURCES)!r}.all(name, "
            "!(name in self.requests) || !(name in self.limits) || "
            "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            message="requests must not be larger than limits",
            holds=lambda it: all(
                amount(it.requests[name]) <= amount(it.limits[name])
                for name in COMPARED_RESOURCES
                if name in it.requests and name in it.limits
            ),
        ),
    )

    limits: Annotated[dict[str, ResourceQuantity], Field(max_length=32)] = {}
    """Most of each resource that the container may use."""

    requests: Annotated[dict[str, ResourceQuantity], Field(max_length=32)] = {}
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
    then start all. Auto: Surge, and MaxUnavailable for a rollout whose new Pod lacks what an old one holds: as many
    accelerators, or a claim that one Pod at a time may use."""


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


class VectorSpace(ApiModel):
    """The vector space this endpoint promises."""

    expected_fingerprint: Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Fingerprint the model must have, as status.model.fingerprint shows it. A Pod with any other never becomes ready,
    so that old and new vectors never mix behind one name."""
