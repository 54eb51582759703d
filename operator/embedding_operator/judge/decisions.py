"""Decisions that rest on what is running now: replicas, rollout strategy, the pinned defaults. Pure.

What must survive a restart of the operator is kept in annotations of the Deployment, never in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from embedding_operator.api.constants import CONTAINER_NAME, FIELD_MANAGER
from embedding_operator.judge.rollout import rollout_of
from embedding_operator.judge.shortage import gives_way
from embedding_operator.observe.managed_fields import applied_fields, own_annotations
from embedding_operator.observe.snapshot import Object, PodState
from embedding_operator.render import Strategy

KEPT_REPLICAS = "embedding-operator.io/kept-replicas"
AUTOSCALER = "autoscaler"
RUNTIME_DEFAULTS = "embedding-operator.io/runtime-defaults"
TEMPLATE_HASH = "embedding-operator.io/template-hash"

SCHEDULING_PATIENCE = timedelta(seconds=20)
"""How long a new Pod may wait for its accelerator before a rollout stops asking for one more than there are."""


def annotations_of(live: Object | None) -> Mapping[str, str]:
    """What we remember on the Deployment. What somebody else wrote under our names is not believed."""
    return own_annotations(live, FIELD_MANAGER)


# Replicas ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replicas:
    """Who decides the Deployment's replicas now, and how the change of hands is made without losing a Pod."""

    render: int | None
    """The count we own, or None while the autoscaler owns it."""
    hand_over: int | None = None
    """A live count that must be applied under another manager before we stop owning it: dropping a field that only we
    own by server-side apply resets it to its default of 1."""
    keep: str | None = None
    """Value of the `kept-replicas` annotation, valid while spec.replicas stays as it was: `<spec.replicas>:<count>`, or
    `autoscaler:<spec.replicas>` while an autoscaler decides."""


def owns_replicas(deployment: Object, manager: str = FIELD_MANAGER) -> bool:
    """Whether `spec.replicas` of this Deployment was last applied by `manager`."""
    fields = applied_fields(deployment, manager) or {}
    return "f:replicas" in (fields.get("f:spec") or {})


def kept_replicas(deployment: Object | None, spec_replicas: int) -> int | None:
    """The count remembered for this value of spec.replicas; None when there is none."""
    asked, _, count = annotations_of(deployment).get(KEPT_REPLICAS, "").partition(":")
    return int(count) if count.isdigit() and asked == str(spec_replicas) else None


def _was_autoscaled(deployment: Object | None, spec_replicas: int) -> bool:
    """Whether an autoscaler decided until now, and spec.replicas is as it was then: whoever changes the number together
    with switching autoscaling off means the number."""
    decider, _, asked = annotations_of(deployment).get(KEPT_REPLICAS, "").partition(":")
    return decider == AUTOSCALER and asked in ("", str(spec_replicas))


def decide_replicas(*, replicas: int, minimum: int | None, suspended: bool, deployment: Object | None) -> Replicas:
    """`replicas` is spec.replicas, `minimum` is minReplicas with autoscaling and None without."""
    live = int(deployment["spec"].get("replicas", 1)) if deployment is not None else None
    ours = deployment is not None and owns_replicas(deployment)
    kept = kept_replicas(deployment, replicas)
    autoscaled = f"{AUTOSCALER}:{replicas}"
    if suspended:
        # Once a count is remembered, what somebody scales the Deployment to meanwhile is drift. Before, a live count is
        # worth remembering only where an autoscaler made it.
        made = minimum is not None or _was_autoscaled(deployment, replicas)
        running = kept if kept is not None else live if live and made else max(replicas, minimum or 0)
        return Replicas(render=0, keep=f"{replicas}:{running}")
    if minimum is None:
        if kept is not None:
            return Replicas(render=kept, keep=f"{replicas}:{kept}" if kept != replicas else None)
        if live and _was_autoscaled(deployment, replicas):
            # Autoscaling was just switched off, and nothing else: the count that serves stays until the number changes.
            return Replicas(render=live, keep=f"{replicas}:{live}" if live != replicas else None)
        return Replicas(render=replicas)
    if live is None or live == 0:
        # An autoscaler never starts from zero: begin with a count of our own, and hand it over next time.
        return Replicas(render=max(kept or replicas, minimum), keep=autoscaled)
    return Replicas(render=None, hand_over=live if ours else None, keep=autoscaled)


# Rollout strategy ----------------------------------------------------------------------------------------------------


def live_strategy(deployment: Object) -> Strategy:
    """The strategy a Deployment has now."""
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Strategy.RECREATE
    surge = (strategy.get("rollingUpdate") or {}).get("maxSurge")
    return Strategy.MAX_UNAVAILABLE if surge in (0, "0", "0%") else Strategy.SURGE


def decide_strategy(
    asked: str, *, deployment: Object | None, template_changes: bool, pods: Iterable[PodState], now: datetime
) -> Strategy:
    """The strategy to render. `asked` is `spec.rollout.strategy`.

    `Auto` begins every rollout with one Pod more than asked for, and gives that up for this rollout when a Pod stays
    unschedulable for want of what a Pod of another template holds: with no accelerator free, waiting would last for
    ever. A Pod that fits nowhere for another cause, a wrong node selector or a resource that nobody has, is no reason
    to stop one that serves. Without a change of the template nothing is evaluated again.
    """
    if asked != "Auto":
        return Strategy(asked)
    if deployment is None or template_changes:
        return Strategy.SURGE
    current = live_strategy(deployment)
    if current is Strategy.RECREATE:
        return Strategy.SURGE
    if current is Strategy.MAX_UNAVAILABLE or rollout_of(deployment).complete:
        return current
    current_pods = [pod for pod in pods if not pod.terminating]
    stuck = [pod for pod in current_pods if not pod.scheduled and now - pod.created >= SCHEDULING_PATIENCE]
    return Strategy.MAX_UNAVAILABLE if any(gives_way(pod, current_pods) for pod in stuck) else current


# Pinned defaults -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuntimeDefaults:
    """What the operator brings along for services that name no runtime image themselves."""

    image: str
    pull_policy: str
    pull_secrets: tuple[str, ...] = ()

    def as_annotation(self) -> str:
        return json.dumps(
            {"image": self.image, "pullPolicy": self.pull_policy, "pullSecrets": list(self.pull_secrets)},
            sort_keys=True,
        )


PLACEHOLDER_DEFAULTS = RuntimeDefaults("pinned", "IfNotPresent")
"""Stands in for the defaults where a template is hashed, so that the hash tells changes of the spec alone."""


def template_hash(template: Mapping[str, Any]) -> str:
    """A hash of a Pod template that was rendered with `PLACEHOLDER_DEFAULTS`."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pinned(deployment: Object | None) -> RuntimeDefaults | None:
    try:
        value = json.loads(annotations_of(deployment).get(RUNTIME_DEFAULTS, ""))
        return RuntimeDefaults(str(value["image"]), str(value["pullPolicy"]), tuple(map(str, value["pullSecrets"])))
    except (ValueError, KeyError, TypeError):
        return _running(deployment)


def _running(deployment: Object | None) -> RuntimeDefaults | None:
    """The defaults that a Deployment of ours runs with: what the annotation said before somebody touched it."""
    if deployment is None or TEMPLATE_HASH not in annotations_of(deployment):
        return None
    pod = deployment["spec"]["template"]["spec"]
    container = next((it for it in pod["containers"] if it["name"] == CONTAINER_NAME), None)
    if container is None:
        return None
    secrets = tuple(secret["name"] for secret in pod.get("imagePullSecrets") or ())
    return RuntimeDefaults(container["image"], container.get("imagePullPolicy", "IfNotPresent"), secrets)


def decide_defaults(
    deployment: Object | None, *, template_changes: bool, follow_operator: bool, offered: RuntimeDefaults
) -> RuntimeDefaults:
    """The defaults to render with. `offered` are the operator's current ones.

    A service keeps those it was created or last changed with, so that upgrading the operator restarts no Pod, and
    takes the current ones together with a change that restarts its Pods anyway. `follow_operator` is
    `upgradePolicy: WithOperator`.
    """
    if follow_operator or template_changes:
        return offered
    return _pinned(deployment) or offered
