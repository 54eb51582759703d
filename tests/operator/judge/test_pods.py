"""Why a Pod is not serving: one row per cause, with the words a kubelet, scheduler or runtime uses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from embedding_operator.judge.pods import FINGERPRINT_EXIT_CODE, MODEL_LOAD_EXIT_CODE, pod_problem, problems_of
from embedding_operator.judge.reasons import Reason
from embedding_operator.observe.snapshot import Reading

from tests.operator.build import NOW, answering, pod

STOPPED: dict[str, Any] = {"ready": False, "running_since": None}
UNSCHEDULED: dict[str, Any] = {
    "ready": False,
    "scheduled": False,
    "scheduling_reason": "Unschedulable",
    "containers": (),
    "phase": "Pending",
}

OVER: dict[str, Any] = {"ready": False, "phase": "Failed"}

CASES: list[tuple[str, dict[str, Any], Reading | None, Reason, str]] = [
    (
        "the accelerator is missing",
        {**UNSCHEDULED, "scheduling_message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."},
        None,
        Reason.WAITING_FOR_ACCELERATOR,
        "Insufficient nvidia.com/gpu",
    ),
    (
        "something else is missing",
        {**UNSCHEDULED, "scheduling_message": "0/2 nodes are available: 2 Insufficient memory."},
        None,
        Reason.UNSCHEDULABLE,
        "Insufficient memory",
    ),
    (
        "a claim that does not exist",
        {**UNSCHEDULED, "scheduling_message": 'persistentvolumeclaim "models" not found'},
        None,
        Reason.CLAIM_NOT_BOUND,
        "models",
    ),
    (
        "an unbound claim",
        {**UNSCHEDULED, "scheduling_message": "pod has unbound immediate PersistentVolumeClaims"},
        None,
        Reason.CLAIM_NOT_BOUND,
        "unbound",
    ),
    (
        "an image that cannot be pulled",
        {"ready": False, "container": {**STOPPED, "waiting_reason": "ImagePullBackOff", "waiting_message": "no such"}},
        None,
        Reason.IMAGE_PULL_FAILED,
        "embedding-runtime:1: no such",
    ),
    (
        "a missing Secret, named by the container",
        {
            "ready": False,
            "container": {
                **STOPPED,
                "waiting_reason": "CreateContainerConfigError",
                "waiting_message": 'secret "hub-token" not found',
            },
        },
        None,
        Reason.SECRET_NOT_FOUND,
        "hub-token",
    ),
    (
        "a missing key of a Secret",
        {
            "ready": False,
            "container": {
                **STOPPED,
                "waiting_reason": "CreateContainerConfigError",
                "waiting_message": "couldn't find key token in Secret search/hub",
            },
        },
        None,
        Reason.SECRET_NOT_FOUND,
        "key token",
    ),
    (
        "a missing Secret, named only by an event",
        {
            "ready": False,
            "phase": "Pending",
            "container": {**STOPPED, "waiting_reason": "ContainerCreating"},
            "warnings": ('MountVolume.SetUp failed for volume "api-keys" : secret "keys" not found',),
        },
        None,
        Reason.SECRET_NOT_FOUND,
        "keys",
    ),
    (
        "the model cannot be loaded",
        {
            "ready": False,
            "container": {
                **STOPPED,
                "waiting_reason": "CrashLoopBackOff",
                "restarts": 3,
                "terminated_reason": "Error",
                "exit_code": MODEL_LOAD_EXIT_CODE,
                "termination_message": "INFO loading\nerror: cannot load model /model: model.safetensors is missing\n",
            },
        },
        None,
        Reason.MODEL_LOAD_FAILED,
        "error: cannot load model /model: model.safetensors is missing",
    ),
    (
        "the vector space is another one",
        {
            "ready": False,
            "container": {
                **STOPPED,
                "terminated_reason": "Error",
                "exit_code": FINGERPRINT_EXIT_CODE,
                "termination_message": "error: fingerprint sha256:b, expected sha256:a",
            },
        },
        None,
        Reason.FINGERPRINT_MISMATCH,
        "expected sha256:a",
    ),
    (
        "killed for memory",
        {"ready": False, "container": {**STOPPED, "terminated_reason": "OOMKilled", "exit_code": 137}},
        None,
        Reason.OUT_OF_MEMORY,
        "memory",
    ),
    (
        "crashed and running again, not yet ready",
        {
            "ready": False,
            "container": {
                "ready": False,
                "restarts": 2,
                "terminated_reason": "Error",
                "exit_code": 1,
                "termination_message": "boom",
            },
        },
        Reading(ready=False, message="loading weights"),
        Reason.CRASH_LOOP,
        "boom (exit code 1)",
    ),
    (
        "downloading",
        {"ready": False, "container": {"ready": False}},
        Reading(ready=False, message="downloading model.safetensors 40 %"),
        Reason.MODEL_DOWNLOADING,
        "40 %",
    ),
    (
        "loading",
        {"ready": False, "container": {"ready": False}},
        Reading(ready=False, message="warming up"),
        Reason.MODEL_LOADING,
        "warming up",
    ),
    (
        "running, but out of the operator's reach",
        {"ready": False, "container": {"ready": False}},
        Reading(error="http://10.0.0.1:8000/v1 did not answer: ConnectTimeout"),
        Reason.ENDPOINT_UNREACHABLE,
        "did not answer",
    ),
    (
        "just started, the port not open yet",
        {"ready": False, "container": {"ready": False, "running_since": NOW - timedelta(seconds=3)}},
        Reading(error="http://10.0.0.1:8000/v1 did not answer: connection refused"),
        Reason.STARTING,
        "port",
    ),
    ("evicted", {**OVER, "status_reason": "Evicted", "status_message": "disk"}, None, Reason.EVICTED, "disk"),
    (
        "refused by its node",
        {**OVER, "status_reason": "UnexpectedAdmissionError", "status_message": "Available: 0, which is unexpected"},
        None,
        Reason.POD_FAILED,
        "UnexpectedAdmissionError: Available: 0",
    ),
    (
        "on a node that fell silent: its node's controller took Ready away, the kubelet's words are the last it said",
        {"ready": False, "containers_ready": True, "container": {"ready": True, "started": True}},
        answering(),
        Reason.NODE_LOST,
        "node-1 does not answer",
    ),
    (
        "deleted after its node fell silent, and still there",
        {
            "ready": False,
            "terminating": True,
            "deletion_due": NOW,
            "containers_ready": True,
            "container": {"ready": True, "started": True},
        },
        None,
        Reason.NODE_LOST,
        "node-1 does not answer",
    ),
    (
        "being deleted for longer than it may take",
        {
            "ready": False,
            "terminating": True,
            "deletion_due": NOW - timedelta(minutes=2),
            "ready_reason": "ContainersNotReady",
        },
        None,
        Reason.POD_FAILED,
        "should have ended by 2026-11-20T11:58:00Z",
    ),
    (
        "held back by a readiness gate of somebody else",
        {
            "ready": False,
            "containers_ready": True,
            "ready_reason": "ReadinessGatesNotReady",
            "ready_message": 'the status of pod readiness gate "lb" is not "True"',
            "container": {"ready": True, "started": True},
        },
        answering(),
        Reason.STARTING,
        'readiness gate "lb"',
    ),
    (
        "it had started, and its readiness probe fails now",
        {
            "ready": False,
            "ready_reason": "ContainersNotReady",
            "container": {"ready": False, "started": True},
            "warnings": ("Readiness probe failed: timed out", "Startup probe failed: HTTP probe failed"),
        },
        Reading(error="http://10.0.0.1:8000 did not answer: ReadTimeout"),
        Reason.PROBE_FAILED,
        "Readiness probe failed: timed out; http://10.0.0.1:8000 did not answer",
    ),
    (
        "it had started, and says itself that it is not ready",
        {"ready": False, "ready_reason": "ContainersNotReady", "container": {"ready": False, "started": True}},
        Reading(ready=False, message="the device reported an error"),
        Reason.PROBE_FAILED,
        "the device reported an error",
    ),
    (
        "its image is on its way",
        {
            "ready": False,
            "phase": "Pending",
            "container": {**STOPPED, "waiting_reason": "ContainerCreating"},
            "warnings": ('Pulling image "nvcr.io/nim/volume:1"',),
        },
        None,
        Reason.STARTING,
        'pulling image "nvcr.io/nim/volume:1"',
    ),
    (
        "it has just started: the first readiness probe is to come",
        {"ready": False, "ready_reason": "ContainersNotReady", "container": {"ready": False, "started": True}},
        answering(),
        Reason.STARTING,
        "probe has not passed yet",
    ),
    (
        "ended by its startup probe, which is no crash",
        {
            "ready": False,
            "container": {
                "ready": False,
                "started": False,
                "restarts": 1,
                "terminated_reason": "Error",
                "exit_code": 143,
                "termination_message": "INFO stopping\n",
            },
            "warnings": (
                "Container runtime failed startup probe, will be restarted",
                "Startup probe failed: HTTP probe failed with statuscode: 503",
            ),
        },
        Reading(ready=False, message="loading weights"),
        Reason.PROBE_FAILED,
        "will be restarted: Startup probe failed: HTTP probe failed with statuscode: 503",
    ),
    (
        "ended in order when its startup probe failed",
        {
            "ready": False,
            "container": {
                "ready": False,
                "started": False,
                "restarts": 1,
                "terminated_reason": "Completed",
                "exit_code": 0,
            },
            "warnings": (
                "Container runtime failed startup probe, will be restarted",
                "Startup probe failed: HTTP probe failed with statuscode: 503",
            ),
        },
        Reading(ready=False, message="downloading"),
        Reason.PROBE_FAILED,
        "will be restarted: Startup probe failed: HTTP probe failed with statuscode: 503",
    ),
    (
        "killed, and no probe was it",
        {
            "ready": False,
            "container": {**STOPPED, "restarts": 1, "terminated_reason": "Error", "exit_code": 137},
            "warnings": ("Container sidecar failed liveness probe, will be restarted",),
        },
        None,
        Reason.CRASH_LOOP,
        "exit code 137",
    ),
]


@pytest.mark.parametrize(
    ("changes", "reading", "reason", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_cause_is_named(changes: dict[str, Any], reading: Reading | None, reason: Reason, words: str) -> None:
    problem = pod_problem(pod(**changes), reading, NOW, accelerator="nvidia.com/gpu")
    assert problem is not None
    assert problem.reason is reason
    assert words in problem.message


def test_a_ready_or_departing_pod_has_no_problem() -> None:
    assert pod_problem(pod(), answering(), NOW) is None
    assert pod_problem(pod(ready=False, terminating=True), None, NOW) is None
    leaving = {"terminating": True, "deletion_due": NOW, "ready_reason": "ContainersNotReady"}
    assert pod_problem(pod(ready=False, **leaving), None, NOW) is None


def test_faults_come_before_stages_and_newer_pods_first() -> None:
    loading = pod("new", ready=False, container={"ready": False})
    broken = pod("old", ready=False, container={**STOPPED, "waiting_reason": "ErrImagePull"})
    problems = problems_of([loading, broken], {"new": Reading(ready=False, message="loading")}, NOW)
    assert [problem.pod for problem in problems] == ["old", "new"]


def test_long_messages_are_cut_and_stay_on_one_line() -> None:
    message = "word\n" * 1000
    problem = pod_problem(
        pod(ready=False, container={**STOPPED, "waiting_reason": "ErrImagePull", "waiting_message": message}), None, NOW
    )
    assert problem is not None
    assert len(problem.message) <= 500
    assert "\n" not in problem.message


def test_a_pod_that_is_over_explains_nothing_once_its_successor_was_ready() -> None:
    evicted = pod("old", **OVER, status_reason="Evicted", created=NOW - timedelta(hours=2))
    loading = pod("new", ready=False, created=NOW - timedelta(hours=1))
    next_template = pod("next", ready=False, template_hash="2", created=NOW)
    said = Reading(ready=False, message="loading")

    def reasons(*pods: Any) -> list[str]:
        return [problem.reason.value for problem in problems_of(pods, {it.name: said for it in pods}, NOW)]

    assert reasons(evicted) == ["Evicted"]
    assert reasons(evicted, loading) == ["Evicted", "ModelLoading"]
    assert reasons(evicted, pod("new")) == []
    assert reasons(evicted, pod("new"), next_template) == ["ModelLoading"]
    # Its template was given up before a Pod of it was ever ready, and it was created after the next one's first Pod.
    late = pod("late", **OVER, status_reason="Evicted", created=NOW)
    assert reasons(late, pod("next", template_hash="2", created=NOW - timedelta(hours=1))) == []
    assert reasons(evicted, next_template) == ["ModelLoading"]
    # The old template serves, the new one's Pods are evicted one after another.
    assert reasons(late, loading, pod("serves", template_hash="0")) == ["Evicted", "ModelLoading"]
