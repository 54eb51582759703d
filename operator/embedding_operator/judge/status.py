"""The whole `status` of an EmbeddingService, from a snapshot and what the last steps came to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedding_operator.api import EmbeddingService, RolloutStrategy
from embedding_operator.api.constants import CONTAINER_NAME, SERVICE_LABEL
from embedding_operator.api.kinds import DEPLOYMENTS, PODS
from embedding_operator.api.service import EmbeddingServiceSpec
from embedding_operator.judge.conditions import Facts, Verdict, as_conditions, judge_conditions
from embedding_operator.judge.decisions import kept_replicas, live_strategy
from embedding_operator.judge.identity import Identity, identity_of, serving
from embedding_operator.judge.load import any_fresh, load_of, load_to_show
from embedding_operator.judge.pods import Problem, foreign_pods, problems_of, recoveries
from embedding_operator.judge.rollout import Rollout, rollout_of
from embedding_operator.observe.pods import belongs_to
from embedding_operator.observe.snapshot import Object, PodState, RuntimeMetrics, Snapshot
from embedding_operator.render import Strategy

HISTORY_LENGTH = 5
PROBLEMS_LENGTH = 5


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two looks at the same service; losing it costs accuracy once, never truth."""

    metrics: Mapping[str, RuntimeMetrics] = field(default_factory=dict)
    """By Pod name, of the look before."""
    load_written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the service's state comes to."""

    verdicts: Mapping[str, Verdict]
    status: dict[str, Any]
    problems: tuple[Problem, ...]
    rollout: Rollout | None
    settled: bool
    """Nothing is on its way: the next look may wait for the slow rhythm."""


def required_replicas(spec: EmbeddingServiceSpec | None, rollout: Rollout | None, autoscaler: Object | None) -> int:
    """How many Pods must be ready for the service to be: what autoscaling guarantees, or what the Deployment asks."""
    if spec is not None and spec.autoscaling is not None:
        return spec.autoscaling.min_replicas
    if spec is None and autoscaler is not None:
        return int((autoscaler.get("spec") or {}).get("minReplicas") or 1)
    return rollout.desired if rollout is not None else 1


def _accelerator(spec: EmbeddingServiceSpec | None, deployment: Object | None) -> str | None:
    """The extended resource that the Pods ask for; of a spec that is not understood, what runs tells."""
    if spec is not None:
        resource = spec.accelerator.effective_resource
        return resource.name if resource is not None else None
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or ()
    runtime = next((it for it in containers if it["name"] == CONTAINER_NAME), None) or {}
    limits = (runtime.get("resources") or {}).get("limits") or {}
    return next((name for name in limits if "/" in name), None)


def _counts(snapshot: Snapshot, rollout: Rollout | None, pods: Iterable[PodState]) -> dict[str, int]:
    """Counts of Pods, by the Deployment; none where it may not be read, for zero would be a claim.

    Those that serve are counted as the conditions count them: the Deployment's own figure comes a moment later.
    """
    if rollout is None and (DEPLOYMENTS.api_version, DEPLOYMENTS.kind) in snapshot.unread:
        return {}
    # Where Pods may not be read, the Deployment's figure is all there is.
    unread = (PODS.api_version, PODS.kind) in snapshot.unread
    ready = 0 if rollout is None else rollout.ready if unread else len(serving(pods))
    return {
        "replicas": rollout.total if rollout else 0,
        "readyReplicas": ready,
        "updatedReplicas": rollout.updated if rollout else 0,
    }


def _replaces_in_place(spec: EmbeddingServiceSpec | None, deployment: Object | None) -> bool:
    automatic = spec is not None and spec.rollout.strategy is RolloutStrategy.AUTO
    return automatic and deployment is not None and live_strategy(deployment) is Strategy.MAX_UNAVAILABLE


def _kept(spec: EmbeddingServiceSpec | None, deployment: Object | None) -> str:
    """Words for a count that an autoscaler left and that stays until spec.replicas changes."""
    if spec is None or spec.suspend or spec.autoscaling is not None:
        return ""
    kept = kept_replicas(deployment, spec.replicas)
    if kept is None or kept == spec.replicas:
        return ""
    return f"{kept} Pods as the autoscaler left them, not the {spec.replicas} of spec.replicas: change that to scale"


def _problem_entries(
    problems: Iterable[Problem], previous: Iterable[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """`status.problems`. A problem that the status told of before began when it says; any other was seen just now."""
    known = {(entry.get("pod"), entry.get("container"), entry.get("reason")): entry.get("since") for entry in previous}
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = []
    for problem in [problem for problem in problems if not problem.waiting][:PROBLEMS_LENGTH]:
        entry: dict[str, Any] = {"pod": problem.pod, "reason": problem.reason.value, "message": problem.message}
        if problem.container is not None:
            entry["container"] = problem.container
            entry["restarts"] = problem.restarts
        entry["since"] = known.get((problem.pod, problem.container, problem.reason.value)) or moment
        entries.append(entry)
    return entries


def _history(
    previous: list[dict[str, Any]], rollout: Rollout | None, identity: Identity, now: datetime
) -> list[dict[str, Any]]:
    """The last rollouts that finished, newest first; one entry per revision of the Deployment."""
    if rollout is None or not rollout.complete or rollout.revision == 0 or not identity.published:
        return previous
    if previous and previous[0].get("deploymentRevision") == rollout.revision:
        return previous
    entry = {
        "deploymentRevision": rollout.revision,
        "image": identity.runtime.get("image"),
        "fingerprint": identity.model.get("fingerprint"),
        "rolledOutAt": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return [{key: value for key, value in entry.items() if value}, *previous][:HISTORY_LENGTH]


def judge(
    snapshot: Snapshot,
    service: EmbeddingService | None,
    *,
    accepted: Verdict,
    applied: Verdict,
    memory: Memory,
) -> Judgement:
    """Everything `status` says. `service` is None when its spec could not be understood."""
    spec = service.spec if service is not None else None
    before: Mapping[str, Any] = snapshot.resource.get("status") or {}
    deployment = snapshot.deployment
    rollout = rollout_of(deployment) if deployment is not None else None
    pods = tuple(pod for pod in snapshot.pods if belongs_to(pod, snapshot.name))
    foreign = foreign_pods(pod for pod in snapshot.pods if pod not in pods)
    readings = {pod.name: snapshot.readings[pod.name] for pod in pods if pod.name in snapshot.readings}
    identity = identity_of(pods, readings)
    problems = problems_of(pods, readings, snapshot.now, _accelerator(spec, deployment))
    verdicts = judge_conditions(
        Facts(
            accepted=accepted,
            applied=applied,
            suspended=spec is not None and spec.suspend,
            rollout=rollout,
            pods=pods,
            problems=problems,
            identity=identity,
            minimum=required_replicas(spec, rollout, snapshot.autoscaler),
            autoscaler=snapshot.autoscaler,
            # What was asked for before the spec became unintelligible still runs.
            autoscaling=snapshot.autoscaler is not None if spec is None else spec.autoscaling is not None,
            unread=snapshot.unread,
            kept=_kept(spec, deployment),
            in_place=_replaces_in_place(spec, deployment),
        )
    )
    status: dict[str, Any] = {
        "observedGeneration": snapshot.generation,
        "conditions": as_conditions(verdicts, before.get("conditions") or (), snapshot.generation, snapshot.now),
        "selector": f"{SERVICE_LABEL}={snapshot.name}",
        **_counts(snapshot, rollout, pods),
    }
    if service is not None:
        status["url"] = service.url
    elif "url" in before:
        status["url"] = before["url"]
    optional = {
        "model": dict(identity.model),
        "runtime": dict(identity.runtime),
        "load": load_to_show(
            before.get("load"),
            load_of(readings, memory.metrics),
            memory.load_written_at,
            snapshot.now,
            fresh=any_fresh(readings, memory.metrics),
        ),
        "problems": _problem_entries(
            (*problems, *foreign, *recoveries(pods, snapshot.now)), before.get("problems") or (), snapshot.now
        ),
        "history": _history(list(before.get("history") or ()), rollout, identity, snapshot.now),
    }
    status.update({key: value for key, value in optional.items() if value})
    in_motion = "Reconciling" in verdicts or "Stalled" in verdicts
    settled = not in_motion and verdicts["ModelLoaded"].holds
    return Judgement(verdicts, status, problems, rollout, settled)
