"""`spec.runtime`: the server that runs the model, bundled or NVIDIA's own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from .base import ApiModel, Rule, Schema
from .borrowed import EnvFromSource, EnvVar
from .common import LocalReference, Name
from .constants import NIM_VARIABLES, RUNTIME_PORT, RUNTIME_VARIABLES
from .model import PullPolicy
from .quantity import Quantity

OVERRIDABLE_VARIABLES = ("NIM_JSONL_LOGGING", "NIM_LOG_LEVEL")
OWNED_VARIABLES = tuple(
    sorted(name for name in (*RUNTIME_VARIABLES, *NIM_VARIABLES) if name not in OVERRIDABLE_VARIABLES)
)


class RuntimeType(StrEnum):
    """Which server runs the model."""

    BUNDLED = "Bundled"
    NIM = "NIM"


class UpgradePolicy(StrEnum):
    """When a newer operator's runtime image is taken."""

    ON_SPEC_CHANGE = "OnSpecChange"
    WITH_OPERATOR = "WithOperator"


class Precision(StrEnum):
    """Number format of weights and activations; pooling and normalisation are always Float32."""

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"


Repository = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*$")]


class ImageSettings(ApiModel):
    """What every image setting has."""

    tag: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")] | None = None
    """Tag of the image."""

    digest: Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Digest of the image, sha256:… With a tag beside it the digest decides."""

    pull_policy: PullPolicy | None = None
    """When the node fetches the image. Default: the operator's setting, IfNotPresent unless changed."""

    pull_secrets: Annotated[
        tuple[LocalReference, ...],
        Field(max_length=16),
        Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Secrets of type kubernetes.io/dockerconfigjson for the registry, beside the operator's own setting."""


class RuntimeImage(ImageSettings):
    """A container image. Tag and digest may both be given: the digest decides."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.repository) == (has(self.tag) || has(self.digest))",
            message="give repository together with tag or digest",
            holds=lambda image: (image.repository is None) == (image.tag is None and image.digest is None),
        ),
    )

    repository: Repository | None = None
    """Registry and repository, without tag."""


class Batching(ApiModel):
    """How requests become batches. Everything without a value is measured or decided by the runtime."""

    max_wait_milliseconds: Annotated[int, Field(ge=0, le=10000)] = 10
    """Longest time a request waits for company, spent only while the engine is idle and more work is plausible."""

    max_batch_tokens: Annotated[int, Field(ge=1, le=16777216)] | None = None
    """Most tokens in one forward pass. Default: from the device's memory."""

    max_batch_items: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Most inputs in one forward pass. Default: bounded by tokens alone."""

    max_queued_tokens: Annotated[int, Field(ge=1, le=1073741824)] | None = None
    """Most tokens that wait in one Pod; above it requests get 429 with Retry-After. Default: from measured capacity."""


class BundledRuntime(ApiModel):
    """The runtime that comes with the operator."""

    image: RuntimeImage | None = None
    """Default: the operator's runtime image when the EmbeddingService was created or last changed."""

    upgrade_policy: UpgradePolicy = UpgradePolicy.ON_SPEC_CHANGE
    """OnSpecChange: an operator upgrade alone restarts nothing. WithOperator: an operator upgrade rolls out its
    runtime."""

    precision: Precision = Precision.AUTO
    """Number format. Auto: BFloat16 or Float16 where the device is made for it, otherwise Float32."""

    batching: Batching = Batching()
    """How requests become batches."""

    request_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Longest time from a request's arrival to its answer; later it gets 503."""


class NimImage(ImageSettings):
    """NVIDIA's image."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.tag) || has(self.digest)",
            message="give tag or digest",
            holds=lambda image: image.tag is not None or image.digest is not None,
        ),
    )

    repository: Repository
    """Registry and repository, without tag."""


ExtraPort = Annotated[int, Field(ge=1024, le=65535)]


def _ports_differ(nim: Any) -> bool:
    ports = [RUNTIME_PORT, *(port for port in (nim.grpc_port, nim.metrics_port) if port is not None)]
    return len(ports) == len(set(ports))


class NimRuntime(ApiModel):
    """NVIDIA's own embedding NIM: its model is inside the image or fetched by it. It reports no fingerprint and no
    utilization, so those status fields stay empty."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"(!has(self.grpcPort) || self.grpcPort != {RUNTIME_PORT}) && "
            f"(!has(self.metricsPort) || self.metricsPort != {RUNTIME_PORT}) && "
            "(!has(self.grpcPort) || !has(self.metricsPort) || self.grpcPort != self.metricsPort)",
            message=f"grpcPort and metricsPort must differ from each other and from {RUNTIME_PORT}",
            holds=_ports_differ,
        ),
    )

    image: NimImage
    """The NIM image."""

    ngc_secret_ref: LocalReference | None = None
    """Secret whose entry NGC_API_KEY holds the key with which the NIM fetches its model."""

    profile: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Model profile (NIM_MODEL_PROFILE). Default: the NIM chooses one for the GPU."""

    run_as_user: Annotated[int, Field(ge=1, le=2147483647)] | None = None
    """User id of the container, for images whose own user is a name: Kubernetes then cannot tell that it is not root
    and refuses to start it. NVIDIA's operator uses 1000. Default: the image's own user."""

    grpc_port: ExtraPort | None = None
    """Port of the NIM's gRPC endpoint, opened on the Pods and the Service (NIM_GRPC_API_PORT, NIM_TRITON_GRPC_PORT).
    Default: whatever the image uses, reachable by nobody else."""

    metrics_port: ExtraPort | None = None
    """Port of the metrics of the NIM's inference server at /metrics, opened likewise (NIM_TRITON_METRICS_PORT); the
    ServiceMonitor scrapes it too. Default: whatever the image uses."""

    shared_memory_size_limit: Quantity | None = None
    """Size limit of /dev/shm, which counts against the memory limit. Default: what the node allows."""


class Tls(ApiModel):
    """Serve HTTPS. The URL in the status, the probes and the operator follow."""

    secret_name: Name
    """Secret of type kubernetes.io/tls with tls.crt and tls.key. Renewed certificates are picked up without a
    restart."""


def _names_free(env: tuple[dict[str, Any], ...]) -> bool:
    return all(variable.get("name") not in OWNED_VARIABLES for variable in env)


class RuntimeSpec(ApiModel):
    """The server that runs the model. `type` says which of `bundled` and `nim` applies."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.nim) || (has(self.type) && self.type == 'NIM')",
            message="nim needs type: NIM",
            holds=lambda runtime: runtime.nim is None or runtime.type is RuntimeType.NIM,
        ),
        Rule(
            cel="!has(self.type) || self.type != 'NIM' || has(self.nim)",
            message="type NIM needs nim.image",
            holds=lambda runtime: runtime.type is not RuntimeType.NIM or runtime.nim is not None,
        ),
        Rule(
            cel="!has(self.bundled) || !has(self.type) || self.type == 'Bundled'",
            message="bundled needs type: Bundled",
            holds=lambda runtime: runtime.bundled is None or runtime.type is RuntimeType.BUNDLED,
        ),
        Rule(
            cel=f"!has(self.env) || self.env.all(variable, !(variable.name in {list(OWNED_VARIABLES)!r}))",
            message="env must not name a variable that a spec field sets; use the field",
            holds=lambda runtime: _names_free(runtime.env),
        ),
    )

    type: RuntimeType = RuntimeType.BUNDLED
    """Bundled: the runtime that comes with the operator. NIM: NVIDIA's own image."""

    bundled: BundledRuntime | None = None
    """Settings of the bundled runtime."""

    nim: NimRuntime | None = None
    """Settings of NVIDIA's image."""

    startup_timeout_seconds: Annotated[int, Field(ge=30, le=86400)] = 1200
    """Longest time from a container's start to its first readiness: download, load and warm-up. The startup probe, the
    rollout's deadline and the status follow from it."""

    drain_timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    """Longest time a stopping Pod may take to finish requests it has accepted."""

    env: Annotated[
        tuple[EnvVar, ...],
        Field(max_length=128),
        Schema({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Further environment variables of the runtime container."""

    env_from: Annotated[
        tuple[EnvFromSource, ...], Field(max_length=32), Schema({"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Secrets and ConfigMaps whose entries become environment variables of the runtime container."""

    service_account_name: Name | None = None
    """ServiceAccount of the Pods; its token is not mounted. Default: the namespace's default ServiceAccount."""

    tls: Tls | None = None
    """Serve HTTPS with this certificate. NIM images know it from 2.0 on. Default: plain HTTP inside the cluster."""
