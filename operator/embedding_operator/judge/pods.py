"""Why a Pod is not serving: one reason, one sentence with the cause's own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from embedding_operator.api.constants import CONTAINER_NAME
from embedding_operator.judge.reasons import Reason
from embedding_operator.observe.pods import may_have_been_stopped, runtime_container
from embedding_operator.observe.snapshot import ContainerState, PodState, Reading

MODEL_LOAD_EXIT_CODE = 3
"""What the bundled runtime exits with when the model cannot be loaded (`embedding-runtime serve --help`)."""
FINGERPRINT_EXIT_CODE = 4
"""What it exits with when the vector space is not the expected one."""

MESSAGE_LENGTH = 500

OPENING_TIME = timedelta(seconds=45)
"""How long a process may take from its start to listening, before not being reachable is worth a word."""

ENDING_PATIENCE = timedelta(minutes=1)
"""How much longer than its grace period a Pod may take to end."""

RECENT = timedelta(minutes=10)
"""How long after its last end a container that is ready again is worth a word."""

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_MISSING_SECRET = re.compile(
    r"secrets? \"?[^\"]*\"? not found|couldn't find key .* in Secret|references non-existent secret", re.I
)
_CLAIM = re.compile(r"persistentvolumeclaim|PersistentVolumeClaim|persistent volume claim", re.I)
_INSUFFICIENT = re.compile(r"Insufficient ([A-Za-z0-9./_-]+)")
_ENDED_BY_PROBE = re.compile(r"failed (startup|liveness) probe, will be restarted")
_NODE_LOST = "NodeLost"
_OVER = ("Failed", "Succeeded")
_GATES = "ReadinessGatesNotReady"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a Pod from serving, or that it recovers from again and again."""

    pod: str
    reason: Reason
    message: str
    container: str | None = None
    restarts: int = 0
    waiting: bool = False
    """True for a stage every start goes through (pulling, loading): no fault, only not done yet."""
    recovered: bool = False
    """True for what is over: the container ended badly a while ago and is ready again. No condition rests on it."""


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def last_words(container: ContainerState) -> str:
    """What the process said last: the last line that is not part of a traceback's frames, or an empty string."""
    lines = [line.strip() for line in container.termination_message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _scheduling(pod: PodState, accelerator: str | None) -> Problem | None:
    if pod.scheduled:
        return None
    message = pod.scheduling_message
    missing = {name.rstrip(".") for name in _INSUFFICIENT.findall(message)}
    if _CLAIM.search(message):
        reason = Reason.CLAIM_NOT_BOUND
    elif accelerator is not None and accelerator in missing:
        reason = Reason.WAITING_FOR_ACCELERATOR
    elif pod.scheduling_reason in ("", "SchedulingGated"):
        return Problem(pod.name, Reason.STARTING, "waiting for the scheduler", waiting=True)
    else:
        reason = Reason.UNSCHEDULABLE
    return Problem(pod.name, reason, _cut(message or pod.scheduling_reason))


def _pulls(message: str) -> bool:
    """Whether an event's message is about the progress of pulling an image."""
    return message.startswith(("Pulling image", "Successfully pulled image", "Container image"))


def _volume(pod: PodState) -> Problem | None:
    """Causes that only events name: the Pod is on a node, its containers wait for volumes."""
    for message in pod.warnings:
        if _MISSING_SECRET.search(message):
            return Problem(pod.name, Reason.SECRET_NOT_FOUND, _cut(message))
        if _CLAIM.search(message):
            return Problem(pod.name, Reason.CLAIM_NOT_BOUND, _cut(message))
    mounts = [message for message in pod.warnings if re.search("mount|volume", message, re.I) and not _pulls(message)]
    if mounts:
        return Problem(pod.name, Reason.VOLUME_MOUNT_FAILED, _cut(mounts[0]))
    return None


def _ended(container: ContainerState) -> tuple[Reason, str] | None:
    """Reason and message of a container's last end, when it ended badly."""
    if container.terminated_reason is None or container.exit_code == 0:
        return None
    words = last_words(container)
    code = f"exit code {container.exit_code}"
    if container.terminated_reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, f"killed for using more memory than its limit ({code})"
    if container.exit_code == MODEL_LOAD_EXIT_CODE and not container.init:
        return Reason.MODEL_LOAD_FAILED, words or f"the model could not be loaded ({code})"
    if container.exit_code == FINGERPRINT_EXIT_CODE and not container.init:
        return Reason.FINGERPRINT_MISMATCH, words or f"the vector space is not the expected one ({code})"
    reason = Reason.INIT_FAILED if container.init else Reason.CRASH_LOOP
    return reason, f"{words} ({code})" if words else f"{container.terminated_reason}, {code}, and said nothing"


def _ended_by_probe(pod: PodState, container: ContainerState) -> tuple[Reason, str] | None:
    """Reason and message when the kubelet ended the container because a probe failed; only events tell that."""
    if not may_have_been_stopped(container):
        return None
    about = [text for text in pod.warnings if _ENDED_BY_PROBE.search(text) and f"ontainer {container.name} " in text]
    if not about:
        return None
    kind = _ENDED_BY_PROBE.findall(about[0])[0].capitalize()
    cause = next((text for text in pod.warnings if text.startswith(f"{kind} probe")), "")
    return Reason.PROBE_FAILED, ": ".join(text.strip() for text in (about[0], cause) if text)


def _unready(pod: PodState, reading: Reading | None) -> Problem | None:
    """A container that had started, runs, and is not ready: its readiness probe fails."""
    container = next((it for it in pod.containers if it.started and it.running_since and not it.ready), None)
    if container is None:
        return None
    probe = next((text for text in pod.warnings if text.startswith("Readiness probe")), "")
    if not probe and reading is not None and reading.ready:
        return None  # started a moment ago: its first readiness probe is still to come
    own = reading is not None and container.name == CONTAINER_NAME
    said = (reading.error or reading.message) if reading is not None and own and not reading.ready else ""
    text = "; ".join(part.strip() for part in (probe, said) if part) or "its readiness probe fails"
    return Problem(pod.name, Reason.PROBE_FAILED, _cut(text), container.name, container.restarts)


def _container(pod: PodState, container: ContainerState) -> Problem | None:
    def problem(reason: Reason, message: str) -> Problem:
        return Problem(pod.name, reason, _cut(message), container.name, container.restarts)

    waiting = container.waiting_reason
    if waiting in _IMAGE_REASONS:
        return problem(Reason.IMAGE_PULL_FAILED, f"image {container.image}: {container.waiting_message or waiting}")
    if waiting in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        missing = _MISSING_SECRET.search(container.waiting_message)
        reason = Reason.SECRET_NOT_FOUND if missing else Reason.CONTAINER_CONFIGURATION
        return problem(reason, container.waiting_message or waiting)
    ended = _ended_by_probe(pod, container) or _ended(container)
    # A container that ended badly and now runs again keeps its cause until it is ready: in a crash loop the short
    # runs between two ends would otherwise hide the cause half of the time.
    if ended is not None and not container.ready and (container.running_since is None or container.restarts > 0):
        return problem(*ended)
    return None


def _loading(pod: PodState, reading: Reading | None, now: datetime) -> Problem:
    """A Pod whose containers run, but that is not ready: what its own ready endpoint says."""
    if reading is None:
        pulling = next((text for text in pod.warnings if _pulls(text)), "")
        text = "containers are being started"
        if pulling.startswith("Pulling image"):
            text = pulling[0].lower() + pulling[1:]
        return Problem(pod.name, Reason.STARTING, _cut(text), waiting=True)
    if reading.error is not None:
        container = runtime_container(pod)
        if container is not None and container.running_since and now - container.running_since < OPENING_TIME:
            text = "the runtime has just been started and has not opened its port yet"
            return Problem(pod.name, Reason.STARTING, text, waiting=True)
        return Problem(pod.name, Reason.ENDPOINT_UNREACHABLE, _cut(reading.error), waiting=True)
    if reading.ready:
        gates = pod.ready_reason == _GATES
        text = f"ready; waits for {pod.ready_message}" if gates else "ready; its probe has not passed yet"
        return Problem(pod.name, Reason.STARTING, _cut(text), waiting=True)
    reason = Reason.MODEL_DOWNLOADING if reading.message.lower().startswith("downloading") else Reason.MODEL_LOADING
    return Problem(pod.name, reason, _cut(reading.message or "loading"), waiting=True)


def pod_problem(
    pod: PodState, reading: Reading | None, now: datetime, accelerator: str | None = None
) -> Problem | None:
    """Why this Pod is not serving; None when it is ready or on its way out, as long as its node answers for that.

    `accelerator` is the extended resource the service asks for, to tell a shortage of it from other shortages.
    """
    if pod.terminating:
        # Deleted because its node is silent, it stays until somebody confirms its end.
        return _lost_node(pod) or _overdue(pod, now)
    if pod.ready:
        return None
    lost = _lost_node(pod) or _over(pod)
    if lost is not None:
        return lost
    unscheduled = _scheduling(pod, accelerator)
    if unscheduled is not None:
        return unscheduled
    for container in pod.containers:
        found = _container(pod, container)
        if found is not None:
            return found
    return _volume(pod) or _unready(pod, reading) or _loading(pod, reading, now)


def _lost_node(pod: PodState) -> Problem | None:
    """The node's controller calls the Pods of a silent node not ready, and leaves all else as the kubelet left it."""
    if pod.status_reason != _NODE_LOST and not (pod.containers_ready and not pod.ready_reason):
        return None
    text = pod.status_message or f"node {pod.node or 'unknown'} does not answer; the Pod may or may not still run there"
    return Problem(pod.name, Reason.NODE_LOST, _cut(text))


def _overdue(pod: PodState, now: datetime) -> Problem | None:
    """A Pod that should have ended by now and has not: its node is slow or silent, a finalizer or a volume holds it."""
    if pod.deletion_due is None or now - pod.deletion_due < ENDING_PATIENCE:
        return None
    text = f"should have ended by {pod.deletion_due:%Y-%m-%dT%H:%M:%SZ} and has not; look at node {pod.node or 'none'}"
    return Problem(pod.name, Reason.POD_FAILED, _cut(f"{text}, and at the Pod's finalizers and volumes"))


def _over(pod: PodState) -> Problem | None:
    """A Pod that its node has ended or refused; the kubelet starts nothing in it again."""
    if pod.phase != "Failed":
        return None
    if pod.status_reason == "Evicted":
        return Problem(pod.name, Reason.EVICTED, _cut(pod.status_message or "evicted"))
    text = ": ".join(part for part in (pod.status_reason, pod.status_message) if part)
    return Problem(pod.name, Reason.POD_FAILED, _cut(text or "the Pod failed"))


def _outlived(pod: PodState, pods: Iterable[PodState]) -> bool:
    """Whether a Pod that is over is past history: a younger one got ready, or its template has given way to another.

    Pods that a node evicted stay until somebody deletes them; they must not explain what is wrong much later.
    """
    if pod.phase not in _OVER:
        return False
    live = [other for other in pods if other.phase not in _OVER]
    replaced = not any(other.template_hash == pod.template_hash for other in live)
    return any(
        (other.ready and other.created > pod.created) or (replaced and (other.ready or other.created > pod.created))
        for other in live
    )


def problems_of(
    pods: Iterable[PodState], readings: Mapping[str, Reading], now: datetime, accelerator: str | None = None
) -> tuple[Problem, ...]:
    """The problems of all Pods: faults first, the newest Pod's first among equals (it has the current template)."""
    ordered = sorted(pods, key=lambda pod: pod.created, reverse=True)
    present = [pod for pod in ordered if not _outlived(pod, ordered)]
    found = [pod_problem(pod, readings.get(pod.name), now, accelerator) for pod in present]
    problems = [problem for problem in found if problem is not None]
    return tuple(sorted(problems, key=lambda problem: problem.waiting))


def recoveries(pods: Iterable[PodState], now: datetime) -> tuple[Problem, ...]:
    """Containers that ended badly within `RECENT` and are ready again: killed for memory under load, say."""
    found = []
    for pod in pods:
        if not pod.ready or pod.terminating:
            continue
        for container in pod.containers:
            ended = _ended(container)
            at = container.ended_at
            if ended is None or at is None or container.init or not container.ready or now - at > RECENT:
                continue
            reason, words = ended
            times = f"{container.restarts} restart{'s' if container.restarts != 1 else ''}"
            text = f"recovered after {times}, the last end at {at:%Y-%m-%dT%H:%M:%SZ}: {words}"
            found.append(Problem(pod.name, reason, _cut(text), container.name, container.restarts, recovered=True))
    return tuple(found)


def foreign_pods(pods: Iterable[PodState]) -> tuple[Problem, ...]:
    """Pods that carry the service's label without being its Deployment's: they neither count nor serve for it."""
    text = "has this service's label, but is not one of its Pods; the Service may send requests to it: remove the label"
    return tuple(Problem(pod.name, Reason.FOREIGN_POD, text) for pod in pods if not pod.terminating)
