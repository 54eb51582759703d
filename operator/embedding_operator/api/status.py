"""`status`: what the cluster and the running Pods answered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .base import ApiModel, Schema, Time


class ConditionType(StrEnum):
    """Every condition the operator writes."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    APPLIED = "Applied"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    MODEL_LOADED = "ModelLoaded"
    SCALING_ACTIVE = "ScalingActive"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation, as metav1.Condition."""

    type: Annotated[str, Field(max_length=316, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
    """What is observed."""

    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""

    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
    """Why, as one word that programs may rely on."""

    message: Annotated[str, Field(max_length=32768)]
    """Why, and what to do, for people."""

    last_transition_time: Time
    """When the status of this condition changed last."""

    observed_generation: Annotated[int, Field(ge=0), Schema({"format": "int64"})] | None = None
    """The generation of the EmbeddingService that this condition speaks of."""


class ModelIdentity(ApiModel):
    """The model that the ready Pods serve, as they answered. Empty for NIM images, which do not report it all."""

    id: str | None = None
    """Id that clients send."""

    revision: str | None = None
    """Commit of the model repository."""

    fingerprint: str | None = None
    """Fingerprint of the vector space, shown when all ready Pods agree."""

    dimensions: int | None = None
    """Length of a full vector."""

    supported_dimensions: Annotated[
        tuple[int, ...], Field(max_length=64), Schema({"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Lengths that clients may ask for."""

    max_input_tokens: int | None = None
    """Longest input in tokens."""

    pooling: str | None = None
    """How token vectors become one vector."""

    modalities: Annotated[tuple[str, ...], Field(max_length=16), Schema({"x-kubernetes-list-type": "atomic"})] = ()
    """Kinds of input: text, image, text_image."""

    precision: str | None = None
    """Number format of weights and activations."""


class RuntimeStatus(ApiModel):
    """The runtime that the ready Pods run."""

    version: str | None = None
    """Version the runtime reports."""

    image: str | None = None
    """Image as it was asked for."""

    image_id: Annotated[str | None, Field(alias="imageID")] = None
    """Image as the node fetched it, with digest."""


class Load(ApiModel):
    """Load of the service, written at most once a minute and only for a change a person would notice."""

    utilization_percent: int | None = None
    """Demand over measured capacity, averaged over ready Pods; 100 is saturated."""

    tokens_per_second: int | None = None
    """Tokens embedded per second, all Pods together."""

    queued_tokens: int | None = None
    """Tokens waiting, all Pods together."""


class Problem(ApiModel):
    """What keeps one Pod from serving."""

    pod: str
    """Name of the Pod."""

    container: str | None = None
    """Name of the container, when one is to blame."""

    reason: str
    """Why, as one word."""

    message: str
    """Why, and what to do, for people."""

    restarts: int | None = None
    """Restarts of the container."""

    since: Time | None = None
    """When the problem was seen first."""


class HistoryEntry(ApiModel):
    """One finished rollout."""

    deployment_revision: int
    """Revision of the Deployment. To return to it, apply the EmbeddingService as it was then, from version control:
    what `kubectl rollout undo` changes in the Deployment is put back."""

    image: str | None = None
    """Image that was rolled out."""

    fingerprint: str | None = None
    """Fingerprint of the vector space it served."""

    rolled_out_at: Time
    """When all Pods were replaced."""


class EmbeddingServiceStatus(ApiModel):
    """What the cluster and the running Pods answered."""

    observed_generation: Annotated[int, Field(ge=0), Schema({"format": "int64"})] | None = None
    """The generation that this status speaks of."""

    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=32),
        Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = ()
    """Ready sums up the others and carries the reason of the first that fails."""

    url: str | None = None
    """Base URL for OpenAI clients."""

    replicas: int | None = None
    """Pods that exist."""

    ready_replicas: int | None = None
    """Pods that serve."""

    updated_replicas: int | None = None
    """Pods of the latest template."""

    selector: str | None = None
    """Label selector of the Pods, as the scale subresource shows it."""

    model: ModelIdentity | None = None
    """The model that the ready Pods serve, as they answered."""

    runtime: RuntimeStatus | None = None
    """The runtime that the ready Pods run."""

    load: Load | None = None
    """Load of the service."""

    problems: Annotated[tuple[Problem, ...], Field(max_length=5), Schema({"x-kubernetes-list-type": "atomic"})] = ()
    """What keeps Pods from serving; at most five."""

    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=5), Schema({"x-kubernetes-list-type": "atomic"})] = ()
    """The last five rollouts, latest first."""

    def condition(self, type_: ConditionType | str) -> Condition | None:
        """The condition of a type, or None."""
        return next((condition for condition in self.conditions if condition.type == type_), None)
