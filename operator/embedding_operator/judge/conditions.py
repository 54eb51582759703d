"""The conditions of an EmbeddingService, from a snapshot. Pure.

Each condition type has one function that answers with a `Verdict`. `Ready` is the summary: the first of the others that
fails gives it its reason and message. Kubernetes' API conventions hold: every type is present from the first visit,
`observedGeneration` is set on each, `lastTransitionTime` changes only with the status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from embedding_operator.api.kinds import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, PODS, Resource
from embedding_operator.judge.identity import Identity, serving
from embedding_operator.judge.pods import Problem
from embedding_operator.judge.reasons import Reason
from embedding_operator.judge.rollout import Rollout
from embedding_operator.observe.snapshot import Object, PodState


class Truth(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition's status, reason and message."""

    status: Truth
    reason: Reason
    message: str = ""

    @property
    def holds(self) -> bool:
        return self.status is Truth.TRUE


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions are judged from."""

    accepted: Verdict
    """Whether the spec is understood; decided where it is parsed."""
    applied: Verdict
    """Whether the children are as rendered; decided where they are applied."""
    suspended: bool
    rollout: Rollout | None
    pods: tuple[PodState, ...]
    problems: tuple[Problem, ...]
    identity: Identity
    minimum: int
    """How many Pods must be ready for the service to be: `replicas`, or `minReplicas` with autoscaling. With 0 nothing
    is asked for, and nobody is answered."""
    autoscaler: Object | None = None
    autoscaling: bool = False
    unread: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Kinds that may not be read, as `Snapshot.unread` has them."""
    kept: str = ""
    """Why there are more or fewer Pods than `spec.replicas` says, and how that ends; empty when there are as many."""
    in_place: bool = False
    """Whether an automatic rollout gave up surging, because no accelerator is free for one more Pod."""


MESSAGE_LENGTH = 4096
"""Some API servers' refusals repeat whole objects. A status may not be longer than the API server admits."""
NOT_OBSERVED = Verdict(Truth.UNKNOWN, Reason.NOT_OBSERVED, "not looked at yet")


def _first_problem(facts: Facts) -> Problem | None:
    return facts.problems[0] if facts.problems else None


def _named(problem: Problem) -> str:
    return f"Pod {problem.pod}: {problem.message}"


def _because(problem: Problem) -> Verdict:
    """False for what keeps a Pod from serving. That the operator cannot look is no reason for anything to be False."""
    reason = Reason.STARTING if problem.reason is Reason.ENDPOINT_UNREACHABLE else problem.reason
    return Verdict(Truth.FALSE, reason, _named(problem))


def _unread(facts: Facts, kind: Resource) -> Verdict | None:
    """Unknown for what depends on a kind that may not be read: not being able to look makes nothing False."""
    why = facts.unread.get((kind.api_version, kind.kind))
    return None if why is None else Verdict(Truth.UNKNOWN, Reason.FORBIDDEN, f"{kind.plural} cannot be read: {why}")


def _without_pods(facts: Facts) -> Verdict | None:
    """False where the spec asks for no Pods at all: what answers nobody is not ready, however much it was meant so."""
    if facts.suspended:
        return Verdict(Truth.FALSE, Reason.SUSPENDED, "spec.suspend is set: no Pods run")
    if facts.minimum == 0:
        return Verdict(Truth.FALSE, Reason.NO_PODS, "no Pods are asked for; set spec.replicas to 1 or more to serve")
    return None


def _refused(rollout: Rollout | None) -> Verdict | None:
    """Pods that the API server does not admit: there is no Pod to tell of it."""
    if rollout is None or not rollout.failure:
        return None
    return Verdict(Truth.FALSE, Reason.REFUSED, f"Pods cannot be created: {rollout.failure}")


def available(facts: Facts) -> Verdict:
    """True while at least one Pod serves. What is asked for and missing is Ready's business."""
    serves = len(serving(facts.pods))
    if serves:
        return Verdict(Truth.TRUE, Reason.SERVING, f"{serves} Pod{'s' if serves != 1 else ''} serving")
    unread = _unread(facts, PODS)
    if unread is not None:
        counted = facts.rollout.available if facts.rollout is not None and facts.rollout.observed else 0
        said = f"the Deployment counts {counted} available; {unread.message}"
        return Verdict(Truth.TRUE, Reason.SERVING, said) if counted else unread
    idle = _without_pods(facts)
    if idle is not None:
        return idle
    problem = _first_problem(facts)
    if problem is not None:
        return _because(problem)
    return _refused(facts.rollout) or Verdict(Truth.FALSE, Reason.NO_PODS, "no Pod is ready")


def progressing(facts: Facts) -> Verdict:
    """True while a change is on its way to all Pods; False when it arrived or is stuck."""
    rollout = facts.rollout
    if rollout is None:
        unread = _unread(facts, DEPLOYMENTS)
        if unread is not None or not facts.applied.holds:
            return unread or NOT_OBSERVED
        return Verdict(Truth.TRUE, Reason.ROLLING_OUT, "the Deployment has just been created")
    if not rollout.observed:
        return Verdict(Truth.TRUE, Reason.ROLLING_OUT, "the Deployment controller has not seen the last change yet")
    if rollout.deadline_exceeded:
        problem = _first_problem(facts)
        cause = f"; {_named(problem)}" if problem else ""
        return Verdict(Truth.FALSE, Reason.DEADLINE_EXCEEDED, f"{rollout.message or 'no progress in time'}{cause}")
    if not rollout.complete:
        old = max(0, rollout.total - rollout.updated)
        text = f"{rollout.updated} of {rollout.desired} Pods have the current template"
        rest = f"{old} old remain" if old else f"{rollout.available} are available"
        place = "; Pods are replaced in place, because nothing is free for one more" if facts.in_place else ""
        pause = "; the Deployment is paused: `kubectl rollout resume` lets it go on" if rollout.paused else ""
        return Verdict(Truth.TRUE, Reason.ROLLING_OUT, f"{text}, {rest}{place}{pause}")
    return Verdict(Truth.FALSE, Reason.ROLLED_OUT, "every Pod has the current template")


def model_loaded(facts: Facts) -> Verdict:
    """True when every serving Pod published the same vector space."""
    identity = facts.identity
    unread = _unread(facts, PODS)
    if unread is not None:
        return unread
    if not identity.agreed:
        spaces = "; ".join(f"{space or 'none'}: {', '.join(names)}" for space, names in identity.fingerprints.items())
        return Verdict(Truth.FALSE, Reason.REPLICAS_DISAGREE, f"Pods serve different vector spaces: {spaces}")
    if identity.unreachable:
        name, error = next(iter(identity.unreachable.items()))
        answered = identity.published + identity.silent
        others = f"; {answered} of {answered + len(identity.unreachable)} Pods could be asked" if answered else ""
        return Verdict(Truth.UNKNOWN, Reason.ENDPOINT_UNREACHABLE, f"Pod {name}: {error}{others}")
    if identity.published:
        model = identity.model
        text = f"{model.get('id', 'the model')} with {model.get('dimensions', '?')} dimensions"
        return Verdict(Truth.TRUE, Reason.MODEL_LOADED, text)
    if identity.silent:
        text = "the runtime serves, but publishes no manifest: identity and fingerprint are unknown"
        return Verdict(Truth.TRUE, Reason.IDENTITY_NOT_PUBLISHED, text)
    problem = _first_problem(facts)
    if problem is None:
        return Verdict(Truth.UNKNOWN, Reason.NO_PODS, "no Pod runs")
    if problem.reason is Reason.ENDPOINT_UNREACHABLE:
        return Verdict(Truth.UNKNOWN, problem.reason, _named(problem))
    return Verdict(Truth.FALSE, problem.reason, _named(problem))


def scaling_active(facts: Facts) -> Verdict:
    """What the HorizontalPodAutoscaler says about itself."""
    unread = _unread(facts, HORIZONTAL_POD_AUTOSCALERS)
    if unread is not None and facts.autoscaling:
        return unread
    if not facts.autoscaling:
        return Verdict(Truth.UNKNOWN, Reason.AUTOSCALING_OFF, "spec.autoscaling is not set")
    status = (facts.autoscaler or {}).get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    active = conditions.get("ScalingActive")
    if active is None:
        return Verdict(Truth.UNKNOWN, Reason.WAITING_FOR_AUTOSCALER, "the autoscaler has not reported yet")
    message = str(active.get("message") or "")
    if active.get("status") != "True":
        if active.get("reason") == "ScalingDisabled":
            return Verdict(Truth.FALSE, Reason.SUSPENDED, message)
        return Verdict(Truth.FALSE, Reason.METRIC_UNAVAILABLE, message)
    limited = conditions.get("ScalingLimited") or {}
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        return Verdict(Truth.TRUE, Reason.LIMITED_BY_MAX_REPLICAS, str(limited.get("message") or ""))
    return Verdict(Truth.TRUE, Reason.SCALING_ACTIVE, message)


def ready(facts: Facts, others: Mapping[str, Verdict]) -> Verdict:
    """Everything that was asked for is there: accepted, applied, rolled out, loaded, with all its replicas."""
    for part in ("Accepted", "Applied"):
        if not others[part].holds:
            return others[part]
    idle = _without_pods(facts)
    if idle is not None:
        return idle
    serves = len(serving(facts.pods))
    fault = next((problem for problem in facts.problems if not problem.waiting), None)
    rollout = facts.rollout
    complete = rollout is not None and rollout.complete
    if serves < facts.minimum or not complete:
        if fault is not None:
            return Verdict(Truth.FALSE, fault.reason, _named(fault))
        refused = _refused(rollout)
        if refused is not None:
            return refused
    if others["ModelLoaded"].reason is Reason.REPLICAS_DISAGREE:
        return others["ModelLoaded"]
    waiting = _first_problem(facts)
    if not complete:
        if serves == 0 and waiting is not None:
            return _because(waiting)
        state = others["Progressing"]
        reason = state.reason if state.reason is Reason.DEADLINE_EXCEEDED else Reason.ROLLING_OUT
        message = state.message if waiting is None else f"{state.message}; {_named(waiting)}"
        return Verdict(Truth.FALSE, reason, message)
    if serves < facts.minimum:
        if serves == 0 and waiting is not None:
            return _because(waiting)
        tail = f"; {_named(waiting)}" if waiting is not None else ""
        return Verdict(Truth.FALSE, Reason.SCALING, f"{serves} of {facts.minimum} Pods are ready{tail}")
    loaded = others["ModelLoaded"]
    if loaded.status is Truth.FALSE:
        return loaded
    note = "".join(f"; {text}" for text in (loaded.message, facts.kept) if text)
    return Verdict(Truth.TRUE, Reason.READY, f"{serves} Pod{'s' if serves != 1 else ''} serving{note}")


def judge_conditions(facts: Facts) -> dict[str, Verdict]:
    """All condition types, in the order the status lists them."""
    verdicts = {
        "Accepted": facts.accepted,
        "Applied": facts.applied,
        "Available": available(facts),
        "Progressing": progressing(facts),
        "ModelLoaded": model_loaded(facts),
        "ScalingActive": scaling_active(facts),
    }
    summary = ready(facts, verdicts)
    result = {"Ready": summary, **verdicts}
    stuck = (Reason.INVALID_SPEC, Reason.NAME_TAKEN, Reason.REFUSED, Reason.FORBIDDEN, Reason.DEADLINE_EXCEEDED)
    if summary.reason in stuck or verdicts["Progressing"].reason is Reason.DEADLINE_EXCEEDED:
        result["Stalled"] = Verdict(Truth.TRUE, summary.reason, summary.message)
    elif not summary.holds and summary.reason not in (Reason.SUSPENDED, Reason.NO_PODS):
        result["Reconciling"] = Verdict(Truth.TRUE, summary.reason, summary.message)
    return result


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"


def as_conditions(
    verdicts: Mapping[str, Verdict], previous: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Verdicts as `status.conditions`, keeping `lastTransitionTime` where the status did not change."""
    known = {condition["type"]: condition for condition in previous}
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = []
    for kind, verdict in verdicts.items():
        before = known.get(kind)
        unchanged = before is not None and before.get("status") == verdict.status.value
        conditions.append(
            {
                "type": kind,
                "status": verdict.status.value,
                "reason": verdict.reason.value,
                "message": _cut(verdict.message),
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else moment,
            }
        )
    return conditions
