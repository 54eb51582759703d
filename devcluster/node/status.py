"""A Pod's status from the states of its containers, as a kubelet reports it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

Object = dict[str, Any]


class Role(Enum):
    """What a container is in its Pod."""

    INIT = "init"
    SIDECAR = "sidecar"  # an init container with restartPolicy Always
    APP = "app"


@dataclass(frozen=True)
class Waiting:
    """A container that does not run yet, or not now."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """A container whose process runs."""

    started_at: datetime


@dataclass(frozen=True)
class Terminated:
    """A container whose process ended."""

    exit_code: int
    reason: str
    started_at: datetime | None
    finished_at: datetime
    message: str = ""
    container_id: str = ""
    signal: int = 0


State = Waiting | Running | Terminated


@dataclass(frozen=True)
class ContainerFacts:
    """What is known of one container now."""

    name: str
    image: str
    role: Role
    state: State
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    image_id: str = ""
    container_id: str = ""


@dataclass(frozen=True)
class PodFacts:
    """What is known of a Pod now."""

    containers: Sequence[ContainerFacts]
    start_time: datetime
    sandbox_ready: bool
    pod_address: str | None
    host_address: str
    over: str | None = None
    """`Succeeded` or `Failed` once the Pod is over whatever its containers say, such as after activeDeadlineSeconds."""
    reason: str = ""
    message: str = ""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(state: State) -> Object:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": timestamp(state.started_at)}}
    terminated: Object = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "finishedAt": timestamp(state.finished_at),
        "startedAt": timestamp(state.started_at) if state.started_at else None,
    }
    if state.message:
        terminated["message"] = state.message
    if state.signal:
        terminated["signal"] = state.signal
    if state.container_id:
        terminated["containerID"] = state.container_id
    return {"terminated": terminated}


def container_status(facts: ContainerFacts) -> Object:
    """One entry of `containerStatuses` or `initContainerStatuses`."""
    return {
        "name": facts.name,
        "image": facts.image,
        "imageID": facts.image_id,
        "containerID": facts.container_id,
        "restartCount": facts.restarts,
        "ready": facts.ready,
        "started": facts.started,
        "state": _state(facts.state),
        "lastState": _state(facts.last) if facts.last else {},
    }


def phase_of(facts: PodFacts, restart_policy: str) -> str:
    """The Pod's phase, by the rules of kubelet's `getPhase`."""
    if facts.over:
        return facts.over
    for container in facts.containers:
        if container.role is Role.INIT and not _succeeded(container):
            failed = isinstance(container.state, Terminated) and container.state.exit_code != 0
            return "Failed" if failed and restart_policy == "Never" else "Pending"
        if container.role is Role.SIDECAR and not container.started and not isinstance(container.state, Terminated):
            return "Pending"
    apps = [container for container in facts.containers if container.role is Role.APP]
    if any(isinstance(container.state, Waiting) and container.last is None for container in apps):
        return "Pending"
    if any(isinstance(container.state, Running) for container in apps):
        return "Running"
    if restart_policy == "Always":
        return "Running"
    if all(_succeeded(container) for container in apps):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def _succeeded(container: ContainerFacts) -> bool:
    return isinstance(container.state, Terminated) and container.state.exit_code == 0


def _condition(
    kind: str, met: bool, previous: Mapping[str, Object], now: datetime, generation: int, reason: str, message: str
) -> Object:
    status = "True" if met else "False"
    before = previous.get(kind)
    since = before["lastTransitionTime"] if before and before.get("status") == status else timestamp(now)
    condition: Object = {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }
    condition["reason"] = reason if not met and reason else None
    condition["message"] = message if not met and message else None
    return condition


def _named(containers: Sequence[ContainerFacts]) -> str:
    return "[" + " ".join(container.name for container in containers) + "]"


def _conditions(facts: PodFacts, pod: Object, phase: str, now: datetime) -> list[Object]:
    previous = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", ())}
    generation = pod["metadata"].get("generation", 0)

    def condition(kind: str, met: bool, reason: str = "", message: str = "") -> Object:
        return _condition(kind, met, previous, now, generation, reason, message)

    incomplete = [
        container
        for container in facts.containers
        if (container.role is Role.INIT and not _succeeded(container))
        or (container.role is Role.SIDECAR and not container.started)
    ]
    unready = [c for c in facts.containers if c.role is not Role.INIT and not c.ready]
    if phase == "Succeeded":
        ready_reason, ready_message = "PodCompleted", ""
        incomplete = []
    elif phase == "Failed":
        ready_reason, ready_message = "PodFailed", ""
    else:
        ready_reason, ready_message = "ContainersNotReady", f"containers with unready status: {_named(unready)}"
    containers_ready = not unready and not incomplete and phase == "Running"
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", ())]
    closed = [gate for gate in gates if previous.get(gate, {}).get("status") != "True"]
    pod_reason, pod_message = ready_reason, ready_message
    if containers_ready and closed:
        pod_reason = "ReadinessGatesNotReady"
        pod_message = "; ".join(f'the status of pod readiness gate "{gate}" is not "True"' for gate in closed)
    return [
        condition("PodReadyToStartContainers", facts.sandbox_ready and phase not in ("Succeeded", "Failed")),
        condition(
            "Initialized",
            not incomplete,
            "ContainersNotInitialized",
            f"containers with incomplete status: {_named(incomplete)}",
        ),
        condition("ContainersReady", containers_ready, ready_reason, ready_message),
        condition("Ready", containers_ready and not closed, pod_reason, pod_message),
    ]


def pod_status(facts: PodFacts, pod: Object, now: datetime) -> Object:
    """The fields of `status` that a kubelet owns, for a strategic merge patch of `pod`."""
    phase = phase_of(facts, pod["spec"].get("restartPolicy", "Always"))
    status: Object = {
        "phase": phase,
        "observedGeneration": pod["metadata"].get("generation", 0),
        "startTime": timestamp(facts.start_time),
        "hostIP": facts.host_address,
        "hostIPs": [{"ip": facts.host_address}],
        "conditions": _conditions(facts, pod, phase, now),
        "containerStatuses": [container_status(c) for c in facts.containers if c.role is Role.APP],
        "reason": facts.reason or None,
        "message": facts.message or None,
    }
    inits = [container_status(c) for c in facts.containers if c.role is not Role.APP]
    if inits:
        status["initContainerStatuses"] = inits
    if facts.pod_address:
        status |= {"podIP": facts.pod_address, "podIPs": [{"ip": facts.pod_address}]}
    return status


def says_the_same(ours: Object, theirs: Object) -> bool:
    """Whether a status in the API still has the phase and the conditions that we wrote."""
    found = {condition["type"]: condition["status"] for condition in theirs.get("conditions", ())}
    kept = all(found.get(condition["type"]) == condition["status"] for condition in ours["conditions"])
    return kept and theirs.get("phase") == ours["phase"]
