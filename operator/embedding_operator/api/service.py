"""The EmbeddingService resource itself."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field

from .accelerator import Accelerator
from .autoscaling import Autoscaling
from .base import ApiModel, Rule
from .constants import API_VERSION, KIND, MAX_NAME_LENGTH
from .model import ModelSpec
from .monitoring import Monitoring
from .pod_template import PodTemplateAdditions
from .runtime import BundledRuntime, RuntimeSpec, RuntimeType
from .status import EmbeddingServiceStatus
from .workload import (
    Authentication,
    DisruptionBudget,
    NetworkPolicySettings,
    Resources,
    Rollout,
    Scheduling,
    ServiceSettings,
    VectorSpace,
)

_NIM = "has(self.runtime) && has(self.runtime.type) && self.runtime.type == 'NIM'"
_RESOURCE = "(has(self.accelerator.extendedResource) && has(self.accelerator.extendedResource.name) ? self.accelerator.extendedResource.name : 'nvidia.com/gpu')"  # noqa: E501


def _is_nim(spec: EmbeddingServiceSpec) -> bool:
    return spec.runtime.type is RuntimeType.NIM


def _bundled_has_source(spec: EmbeddingServiceSpec) -> bool:
    return _is_nim(spec) or (spec.model is not None and spec.model.has_source)


def _nim_names_only(spec: EmbeddingServiceSpec) -> bool:
    return not _is_nim(spec) or spec.model is None or spec.model.names_only


def _nim_without_alerts(spec: EmbeddingServiceSpec) -> bool:
    return not _is_nim(spec) or not spec.monitoring.alerts.enabled


def _nim_without_dashboard(spec: EmbeddingServiceSpec) -> bool:
    return not _is_nim(spec) or not spec.monitoring.dashboard.enabled


def _accelerator_named_once(spec: EmbeddingServiceSpec) -> bool:
    resource = spec.accelerator.effective_resource
    return resource is None or resource.name not in {*spec.resources.limits, *spec.resources.requests}


class EmbeddingServiceSpec(ApiModel):
    """What is asked for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"({_NIM}) || (has(self.model) && (has(self.model.huggingFace) || has(self.model.persistentVolumeClaim) || has(self.model.image)))",  # noqa: E501
            message="set one of model.huggingFace, model.persistentVolumeClaim and model.image",
            holds=_bundled_has_source,
        ),
        Rule(
            cel=f"!({_NIM}) || !has(self.model) || [has(self.model.huggingFace), has(self.model.persistentVolumeClaim), has(self.model.image), has(self.model.maxInputTokens), has(self.model.pooling), has(self.model.prompts)].all(set, !set)",  # noqa: E501
            message="runtime type NIM brings its own model: of model only id, aliases and cache may be set",
            holds=_nim_names_only,
        ),
        Rule(
            cel=f"!({_NIM}) || !has(self.authentication)",
            message="runtime type NIM knows no API keys: remove authentication, or put a gateway in front",
            holds=lambda spec: not _is_nim(spec) or spec.authentication is None,
        ),
        Rule(
            cel=f"!({_NIM}) || !has(self.vectorSpace) || !has(self.vectorSpace.expectedFingerprint)",
            message="runtime type NIM reports no fingerprint: remove vectorSpace.expectedFingerprint",
            holds=lambda spec: not _is_nim(spec) or spec.vector_space.expected_fingerprint is None,
        ),
        Rule(
            cel=f"!({_NIM}) || !has(self.autoscaling) || (has(self.autoscaling.metrics) && self.autoscaling.metrics.size() > 0)",  # noqa: E501
            message="runtime type NIM reports no utilization: set autoscaling.metrics",
            holds=lambda spec: not _is_nim(spec) or spec.autoscaling is None or bool(spec.autoscaling.metrics),
        ),
        Rule(
            cel=f"!({_NIM}) || !has(self.service) || !has(self.service.port) || !has(self.runtime.nim) || "
            "((!has(self.runtime.nim.grpcPort) || self.runtime.nim.grpcPort != self.service.port) && "
            "(!has(self.runtime.nim.metricsPort) || self.runtime.nim.metricsPort != self.service.port))",
            message="service.port must differ from runtime.nim.grpcPort and runtime.nim.metricsPort",
            holds=lambda spec: (
                spec.runtime.nim is None
                or spec.service.port not in (spec.runtime.nim.grpc_port, spec.runtime.nim.metrics_port)
            ),
        ),
        *(
            Rule(
                cel=f"!({_NIM}) || !has(self.monitoring) || !has(self.monitoring.{field}) || "
                f"!has(self.monitoring.{field}.enabled) || !self.monitoring.{field}.enabled",
                message=f"runtime type NIM exports other metrics: disable monitoring.{field}",
                holds=holds,
            )
            for field, holds in (("alerts", _nim_without_alerts), ("dashboard", _nim_without_dashboard))
        ),
        *(
            Rule(
                cel=f"!has(self.resources) || !has(self.resources.{field}) || !has(self.accelerator) || (has(self.accelerator.type) && self.accelerator.type != 'ExtendedResource') || !({_RESOURCE} in self.resources.{field})",  # noqa: E501
                message=f"resources.{field} must not name the accelerator's resource; "
                "set accelerator.extendedResource.count",
                holds=_accelerator_named_once,
            )
            for field in ("limits", "requests")
        ),
    )

    model: ModelSpec | None = None
    """The model to serve. Required for runtime type Bundled."""

    runtime: RuntimeSpec = RuntimeSpec()
    """The server that runs the model."""

    accelerator: Accelerator = Accelerator()
    """The device each Pod gets."""

    resources: Resources = Resources()
    """Compute resources of the runtime container, without the accelerator."""

    replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    """Number of Pods. With autoscaling only the count to start from. Where autoscaling alone is removed, the Pods it
    left stay until this number changes; changed in the same edit, it holds at once. With 0 the service is not Ready."""

    autoscaling: Autoscaling | None = None
    """Scale by load. Absent: off."""

    rollout: Rollout = Rollout()
    """How changes are rolled out."""

    service: ServiceSettings = ServiceSettings()
    """The Service in front of the Pods."""

    authentication: Authentication | None = None
    """Bearer keys for the API. Absent: open to whoever can reach it, as a self-hosted NIM is."""

    scheduling: Scheduling = Scheduling()
    """Where Pods may run."""

    pod_template: PodTemplateAdditions = PodTemplateAdditions()
    """Additions to the Pod template."""

    disruption_budget: DisruptionBudget = DisruptionBudget()
    """How many Pods a voluntary disruption may take away."""

    network_policy: NetworkPolicySettings = NetworkPolicySettings()
    """Who may reach the Pods."""

    monitoring: Monitoring = Monitoring()
    """Objects for Prometheus and Grafana."""

    vector_space: VectorSpace = VectorSpace()
    """The vector space this endpoint promises."""

    suspend: bool = False
    """Stop all Pods and keep everything else. The replica count comes back when this is false again."""

    @property
    def is_nim(self) -> bool:
        """Whether NVIDIA's image runs in place of the bundled runtime."""
        return _is_nim(self)

    @property
    def bundled(self) -> BundledRuntime:
        """The bundled runtime's settings with their defaults."""
        return self.runtime.bundled or BundledRuntime()


class ObjectMeta(ApiModel):
    """The metadata the operator reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None


_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


class EmbeddingService(ApiModel):
    """An embedding endpoint: one model, served by Pods behind one Service."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            message=f"metadata.name must be a DNS-1035 label of at most {MAX_NAME_LENGTH} characters: lower-case "
            "letters, digits and dashes, beginning with a letter, because the Service has the same name",
            holds=lambda it: len(it.metadata.name) <= MAX_NAME_LENGTH and bool(_NAME.match(it.metadata.name)),
        ),
    )

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta

    spec: EmbeddingServiceSpec
    """What is asked for."""

    status: EmbeddingServiceStatus = EmbeddingServiceStatus()
    """What the cluster and the running Pods answered."""

    @property
    def name(self) -> str:
        """Name of the resource, of its Deployment and of its Service."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource and of every child."""
        return self.metadata.namespace

    @property
    def served_model_id(self) -> str:
        """The id clients send as `model`."""
        model = self.spec.model
        if model is not None and model.id is not None:
            return model.id
        if model is not None and model.hugging_face is not None:
            return model.hugging_face.repository
        return self.metadata.name

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients inside the cluster."""
        scheme = "https" if self.spec.runtime.tls else "http"
        return f"{scheme}://{self.name}.{self.namespace}.svc:{self.spec.service.port}/v1"
