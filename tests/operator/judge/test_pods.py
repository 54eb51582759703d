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
    ("evicted", {"ready": False, "status_reason": "Evicted", "status_message": "disk"}, None, Reason.EVICTED, "disk"),
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
