"""What one service's children should be now: decisions on what runs, then rendering. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from embedding_operator.api import EmbeddingService, PullPolicy, UpgradePolicy
from embedding_operator.judge.decisions import (
    KEPT_REPLICAS,
    PLACEHOLDER_DEFAULTS,
    RUNTIME_DEFAULTS,
    TEMPLATE_HASH,
    RuntimeDefaults,
    annotations_of,
    decide_defaults,
    decide_replicas,
    decide_strategy,
    template_hash,
)
from embedding_operator.observe.snapshot import Snapshot
from embedding_operator.render import Child, RenderContext, Strategy, render


@dataclass(frozen=True, slots=True)
class OperatorIdentity:
    """What rendering needs to know of the operator itself. None of it reaches a Pod template."""

    namespace: str
    pod_labels: Mapping[str, str]
    defaults: RuntimeDefaults


@dataclass(frozen=True, slots=True)
class Plan:
    """The children to apply, and a replica count to hold while its ownership changes hands."""

    children: tuple[Child, ...]
    hand_over: int | None
    strategy: Strategy


def _with_defaults(context: RenderContext, defaults: RuntimeDefaults) -> RenderContext:
    return replace(
        context,
        runtime_image=defaults.image,
        pull_policy=PullPolicy(defaults.pull_policy),
        pull_secrets=defaults.pull_secrets,
    )


def _deployment(children: tuple[Child, ...]) -> Child:
    return next(child for child in children if child["kind"] == "Deployment")


def plan(service: EmbeddingService, snapshot: Snapshot, operator: OperatorIdentity) -> Plan:
    """Decide what depends on the present state, then render."""
    spec, live = service.spec, snapshot.deployment
    replicas = decide_replicas(
        replicas=spec.replicas,
        minimum=spec.autoscaling.min_replicas if spec.autoscaling is not None else None,
        suspended=spec.suspend,
        deployment=live,
    )
    context = RenderContext(
        runtime_image=PLACEHOLDER_DEFAULTS.image,
        replicas=replicas.render,
        operator_namespace=operator.namespace,
        operator_pod_labels=MappingProxyType(dict(operator.pod_labels)),
    )
    placeholder = render(service, _with_defaults(context, PLACEHOLDER_DEFAULTS))
    fingerprint = template_hash(_deployment(placeholder)["spec"]["template"])
    changes = annotations_of(live).get(TEMPLATE_HASH) != fingerprint
    defaults = decide_defaults(
        live,
        template_changes=changes,
        follow_operator=spec.bundled.upgrade_policy is UpgradePolicy.WITH_OPERATOR,
        offered=operator.defaults,
    )
    strategy = decide_strategy(
        spec.rollout.strategy.value, deployment=live, template_changes=changes, pods=snapshot.pods, now=snapshot.now
    )
    children = render(service, replace(_with_defaults(context, defaults), strategy=strategy))
    annotations = {RUNTIME_DEFAULTS: defaults.as_annotation(), TEMPLATE_HASH: fingerprint}
    if replicas.keep is not None:
        annotations[KEPT_REPLICAS] = replicas.keep
    metadata = _deployment(children)["metadata"]
    metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
    return Plan(children, replicas.hand_over, strategy)
