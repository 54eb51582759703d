"""Pods as the API server holds them -> `PodState`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from embedding_operator.api.constants import CONTAINER_NAME
from embedding_operator.api.quantity import amount
from embedding_operator.observe.snapshot import ContainerState, Object, PodState

_STOPPED_EXIT_CODES = (0, 137, 143)
"""Of a process that was asked to end and did so in order, and of one that SIGKILL or SIGTERM ended."""


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339, UTC), or None."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _container(status: Object, *, init: bool) -> ContainerState:
    state: dict[str, Any] = dict(status.get("state") or {})
    waiting = state.get("waiting") or {}
    running = state.get("running") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    return ContainerState(
        name=status["name"],
        init=init,
        ready=bool(status.get("ready")),
        started=bool(status.get("started")),
        restarts=int(status.get("restartCount") or 0),
        image=str(status.get("image") or ""),
        image_id=str(status.get("imageID") or ""),
        waiting_reason=waiting.get("reason"),
        waiting_message=str(waiting.get("message") or ""),
        running_since=parse_time(running.get("startedAt")),
        terminated_reason=ended.get("reason"),
        exit_code=ended.get("exitCode"),
        ended_at=parse_time(ended.get("finishedAt")),
        termination_message=str(ended.get("message") or "").strip(),
    )


def _controlling_replica_set(metadata: Object) -> str:
    references = metadata.get("ownerReferences") or ()
    nobody: dict[str, Any] = {}
    owner = next((reference for reference in references if reference.get("controller")), nobody)
    return str(owner.get("name") or "") if owner.get("kind") == "ReplicaSet" else ""


def _speaks_tls(pod: Object) -> bool:
    """Whether the runtime container's probes use HTTPS."""
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == CONTAINER_NAME:
            probe = container.get("readinessProbe") or {}
            return str((probe.get("httpGet") or {}).get("scheme") or "").upper() == "HTTPS"
    return False


def _requests_of(container: Object) -> dict[str, Fraction]:
    """A container's requests. The API server has filled in those that only limits were given for."""
    asked = (container.get("resources") or {}).get("requests") or {}
    return {name: amount(value) for name, value in asked.items()}


def _requests(spec: Object) -> dict[str, Fraction]:
    """What the scheduler reserves for a Pod: the sum over containers that run at the same time, or what one init
    container asks for where that is more (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/)."""
    steady: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        stays = container.get("restartPolicy") == "Always"
        for name, value in _requests_of(container).items():
            at_once = steady.get(name, Fraction(0)) + value
            peak[name] = max(peak.get(name, Fraction(0)), at_once)
            if stays:
                steady[name] = at_once
    for container in spec.get("containers") or ():
        for name, value in _requests_of(container).items():
            steady[name] = steady.get(name, Fraction(0)) + value
    return {name: max(steady.get(name, Fraction(0)), peak.get(name, Fraction(0))) for name in {**steady, **peak}}


def _claim_templates(spec: Object) -> frozenset[str]:
    names = (claim.get("resourceClaimTemplateName") for claim in spec.get("resourceClaims") or ())
    return frozenset(name for name in names if name)


def _volume_claims(spec: Object) -> frozenset[str]:
    claims = (volume.get("persistentVolumeClaim") or {} for volume in spec.get("volumes") or ())
    return frozenset(claim["claimName"] for claim in claims if claim)


def belongs_to(pod: PodState, deployment: str) -> bool:
    """Whether the Pod is one of this Deployment's. Its label alone does not say so: anybody can set a label."""
    return bool(pod.replica_set) and pod.replica_set == f"{deployment}-{pod.template_hash}"


def pod_state(pod: Object, warnings: tuple[str, ...] = ()) -> PodState:
    """One Pod object as a `PodState`."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    ready = conditions.get("Ready") or {}
    is_ready = ready.get("status") == "True"
    return PodState(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP") or None,
        phase=str(status.get("phase") or "Unknown"),
        created=parse_time(metadata["creationTimestamp"]) or datetime.min.replace(tzinfo=UTC),
        template_hash=str((metadata.get("labels") or {}).get("pod-template-hash") or ""),
        replica_set=_controlling_replica_set(metadata),
        ready=is_ready,
        ready_since=parse_time(ready.get("lastTransitionTime")) if is_ready else None,
        ready_reason=str(ready.get("reason") or ""),
        ready_message=str(ready.get("message") or ""),
        containers_ready=(conditions.get("ContainersReady") or {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        deletion_due=parse_time(metadata.get("deletionTimestamp")),
        scheduled=scheduled.get("status") == "True" or bool(pod.get("spec", {}).get("nodeName")),
        scheduling_reason=str(scheduled.get("reason") or ""),
        scheduling_message=str(scheduled.get("message") or ""),
        node=pod.get("spec", {}).get("nodeName"),
        requests=_requests(pod.get("spec") or {}),
        claim_templates=_claim_templates(pod.get("spec") or {}),
        volume_claims=_volume_claims(pod.get("spec") or {}),
        status_reason=str(status.get("reason") or ""),
        status_message=str(status.get("message") or ""),
        containers=(
            *(_container(entry, init=True) for entry in status.get("initContainerStatuses") or ()),
            *(_container(entry, init=False) for entry in status.get("containerStatuses") or ()),
        ),
        tls=_speaks_tls(pod),
        labels=dict(metadata.get("labels") or {}),
        warnings=warnings,
    )


def waits_without_reason(pod: PodState) -> bool:
    """Whether the Pod is on a node but its containers wait for something only its events name (volumes, Secrets)."""
    if not pod.scheduled or pod.terminating or pod.phase != "Pending":
        return False
    waiting = [container.waiting_reason for container in pod.containers if container.waiting_reason]
    return all(reason in ("ContainerCreating", "PodInitializing") for reason in waiting)


def may_have_been_stopped(container: ContainerState) -> bool:
    """Whether somebody may have ended the container, rather than itself: the kubelet for a failed probe, say."""
    ended = container.exit_code in _STOPPED_EXIT_CODES and container.terminated_reason != "OOMKilled"
    # An init container ends in order when all is well.
    return ended and (container.exit_code != 0 or not container.init)


def may_fail_probes(pod: PodState) -> bool:
    """Whether a probe may be what keeps this Pod from being ready, or has ended one of its containers: which one failed
    and how, only events say."""
    if pod.ready or pod.terminating:
        return False
    return any(
        (container.started and container.running_since is not None and not container.ready)
        or may_have_been_stopped(container)
        for container in pod.containers
    )


def warning_messages(events: Iterable[Object], limit: int = 8) -> tuple[str, ...]:
    """The distinct messages of Warning events, and of those about images and ended containers, newest first."""

    def last_seen(event: Object) -> str:
        series = event.get("series") or {}
        return str(
            series.get("lastObservedTime")
            or event.get("lastTimestamp")
            or event.get("eventTime")
            or event["metadata"].get("creationTimestamp")
            or ""
        )

    telling = ("Killing", "Pulling", "Pulled")
    warnings = [event for event in events if event.get("type") == "Warning" or event.get("reason") in telling]
    messages = (str(event.get("message") or "") for event in sorted(warnings, key=last_seen, reverse=True))
    return tuple(dict.fromkeys(message for message in messages if message))[:limit]


def runtime_container(pod: PodState) -> ContainerState | None:
    """The container that serves, among sidecars and init containers."""
    return next((container for container in pod.containers if container.name == CONTAINER_NAME), None)


def may_be_asked(pod: PodState) -> bool:
    """Whether there is a running process behind an address that could answer."""
    container = runtime_container(pod)
    return pod.ip is not None and not pod.terminating and container is not None and container.running_since is not None
