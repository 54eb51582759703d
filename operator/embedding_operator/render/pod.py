"""The Pod template. It depends on the spec and on the runtime image, never on the operator's version or on replicas."""

from __future__ import annotations

from typing import Any, Final

from embedding_operator.api import AcceleratorType, EmbeddingService
from embedding_operator.api.constants import CONTAINER_NAME, PORT_NAME, RUNTIME_PORT

from .borrowed import CORE, normalised
from .context import RenderContext
from .environment import arguments, environment
from .images import image_reference, pull_policy, pull_secrets
from .metadata import labels, selector
from .ports import extra_ports
from .probes import PRE_STOP_SECONDS, probes, termination_grace_period_seconds
from .volumes import mounted

Json = dict[str, Any]

FS_GROUP: Final = 10001
"""Group that may write to a cache claim. Any number does: Pods run under whatever user their image names."""

_CLAIM: Final = "accelerator"


def pod_template(service: EmbeddingService, context: RenderContext) -> Json:
    """`spec.template` of the Deployment. Satisfies the Pod Security level `restricted`."""
    additions = service.spec.pod_template
    metadata: Json = {"labels": labels(service, additions.labels)}
    if additions.annotations:
        metadata["annotations"] = dict(additions.annotations)
    return {"metadata": metadata, "spec": _pod(service, context)}


def _pod(service: EmbeddingService, context: RenderContext) -> Json:
    spec = service.spec
    additions = spec.pod_template
    volumes = [*(it.volume() for it in mounted(service)), *_borrowed(additions.volumes, "Volume")]
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(service),
        "terminationGracePeriodSeconds": termination_grace_period_seconds(service),
        "initContainers": _guarded(additions.init_containers),
        "containers": [_runtime(service, context), *_guarded(additions.sidecars)],
        "volumes": volumes,
        "imagePullSecrets": pull_secrets(service, context),
        "serviceAccountName": spec.runtime.service_account_name,
        "resourceClaims": _claims(service),
        **_scheduling(service),
    }
    return {key: value for key, value in pod.items() if value not in (None, [], {})}


def _runtime(service: EmbeddingService, context: RenderContext) -> Json:
    spec = service.spec
    container: Json = {
        "name": CONTAINER_NAME,
        "image": image_reference(service, context),
        "imagePullPolicy": pull_policy(service, context).value,
        "args": arguments(service),
        "env": environment(service),
        "envFrom": _borrowed(spec.runtime.env_from, "EnvFromSource"),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in {PORT_NAME: RUNTIME_PORT, **extra_ports(service)}.items()
        ],
        "resources": _resources(service),
        "volumeMounts": [
            *(it.mount() for it in mounted(service)),
            *_borrowed(spec.pod_template.volume_mounts, "VolumeMount"),
        ],
        **probes(service),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "securityContext": _runtime_security(service),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {key: value for key, value in container.items() if value not in (None, [], {})}


def _resources(service: EmbeddingService) -> Json:
    """Resources with the accelerator in both limits and requests, as extended resources demand."""
    spec = service.spec
    accelerator = spec.accelerator.effective_resource
    own = {} if accelerator is None else {accelerator.name: str(accelerator.count)}
    resources: Json = {
        "limits": {**spec.resources.limits, **own},
        "requests": {**spec.resources.requests, **own},
        "claims": [{"name": _CLAIM}] if spec.accelerator.type is AcceleratorType.RESOURCE_CLAIM else [],
    }
    return {key: value for key, value in resources.items() if value}


def _claims(service: EmbeddingService) -> list[Json]:
    accelerator = service.spec.accelerator
    if accelerator.type is not AcceleratorType.RESOURCE_CLAIM:
        return []
    return [{"name": _CLAIM, "resourceClaimTemplateName": accelerator.resource_claim_template_name}]


def _pod_security(service: EmbeddingService) -> Json:
    context: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    model = service.spec.model
    if model is not None and model.cache is not None and model.cache.persistent_volume_claim is not None:
        # A fresh volume belongs to root; without a group of its own nobody else could write to it.
        context |= {"fsGroup": FS_GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


def _container_security(*, read_only_root: bool) -> Json:
    """NVIDIA's images write below their own root, so only the bundled runtime's is read-only."""
    context: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {**context, "readOnlyRootFilesystem": True} if read_only_root else context


def _runtime_security(service: EmbeddingService) -> Json:
    nim = service.spec.runtime.nim
    context = _container_security(read_only_root=nim is None)
    return context if nim is None or nim.run_as_user is None else {**context, "runAsUser": nim.run_as_user}


def _guarded(containers: tuple[Json, ...]) -> list[Json]:
    """The user's containers, with the security context that `restricted` asks for where they state none."""
    guarded = []
    for container in _borrowed(containers, "Container"):
        own = container.get("securityContext") or {}
        defaults = _container_security(read_only_root=False)
        capabilities = {**defaults["capabilities"], **(own.get("capabilities") or {})}
        guarded.append({**container, "securityContext": {**defaults, **own, "capabilities": capabilities}})
    return guarded


def _scheduling(service: EmbeddingService) -> Json:
    scheduling = service.spec.scheduling
    spread = _borrowed(scheduling.topology_spread_constraints, "TopologySpreadConstraint")
    return {
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": _borrowed(scheduling.tolerations, "Toleration"),
        "affinity": normalised(scheduling.affinity, CORE + "Affinity") if scheduling.affinity else None,
        "topologySpreadConstraints": [{"labelSelector": {"matchLabels": selector(service)}, **it} for it in spread],
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
        "schedulerName": scheduling.scheduler_name,
    }


def _borrowed(values: tuple[Json, ...], definition: str) -> list[Json]:
    return [normalised(value, CORE + definition) for value in values]
