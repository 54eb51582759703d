"""The truth table of the conditions, and the rest of the status, from snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from embedding_operator.api import parse
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.errors import InvalidSpec
from embedding_operator.judge.conditions import Truth, Verdict
from embedding_operator.judge.decisions import KEPT_REPLICAS
from embedding_operator.judge.load import Load, load_of, load_to_show
from embedding_operator.judge.reasons import Reason
from embedding_operator.judge.status import Judgement, Memory, judge
from embedding_operator.observe.snapshot import Reading, Snapshot

from tests.operator.build import NOW, answering, deployment, metrics, owned, pod, resource, snapshot

ACCEPTED = Verdict(Truth.TRUE, Reason.ACCEPTED)
APPLIED = Verdict(Truth.TRUE, Reason.APPLIED)
ALL = {"Ready", "Accepted", "Applied", "Available", "Progressing", "ModelLoaded", "ScalingActive"}


def judged(state: Snapshot, *, accepted: Verdict = ACCEPTED, applied: Verdict = APPLIED) -> Judgement:
    try:
        service = parse(state.resource)
    except InvalidSpec:
        service = None
    return judge(state, service, accepted=accepted, applied=applied, memory=Memory())


def condition(judgement: Judgement, kind: str) -> tuple[str, str]:
    entry = next(entry for entry in judgement.status["conditions"] if entry["type"] == kind)
    return entry["status"], entry["reason"]


def test_a_serving_service_is_ready() -> None:
    state = snapshot(pod(), readings={"minilm-1-a": answering()}, live=deployment())
    judgement = judged(state)
    assert condition(judgement, "Ready") == ("True", "Ready")
    assert condition(judgement, "Progressing") == ("False", "RolledOut")
    assert judgement.settled
    assert judgement.status["model"] == {
        "id": "all-MiniLM-L6-v2",
        "revision": "abc",
        "fingerprint": "sha256:one",
        "dimensions": 384,
        "supportedDimensions": [384],
        "maxInputTokens": 256,
        "pooling": "Mean",
        "modalities": ["text"],
        "precision": "float32",
    }
    assert judgement.status["url"] == "http://minilm.search.svc:8000/v1"
    assert judgement.status["runtime"] == {
        "version": "0.1.0",
        "image": "embedding-runtime:1",
        "imageID": "sha256:abc",
    }
    assert judgement.status["history"][0]["deploymentRevision"] == 1


def test_every_condition_is_set_from_the_first_visit() -> None:
    judgement = judged(snapshot())
    assert {entry["type"] for entry in judgement.status["conditions"]} >= ALL
    assert all(entry["observedGeneration"] == 1 for entry in judgement.status["conditions"])
    assert condition(judgement, "Ready")[0] != "True"


LOADING = pod("minilm-2-b", template_hash="2", ready=False, container={"ready": False})
STUCK = pod(
    "minilm-2-b",
    template_hash="2",
    ready=False,
    scheduled=False,
    scheduling_reason="Unschedulable",
    scheduling_message="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    containers=(),
)
SERVES = {"minilm-1-a": answering()}
MODEL = {"model": {"persistentVolumeClaim": {"claimName": "models"}}}

TABLE: list[tuple[str, Snapshot, tuple[str, str], tuple[str, str]]] = [
    (
        "the Deployment controller has not seen the update",
        snapshot(pod(), readings=SERVES, live=deployment(generation=2, observed=1)),
        ("False", "RollingOut"),
        ("True", "Serving"),
    ),
    (
        "an update is on its way and old Pods serve",
        snapshot(
            pod(),
            LOADING,
            readings={**SERVES, "minilm-2-b": Reading(ready=False, message="loading")},
            live=deployment(total=2, updated=1, ready=1),
        ),
        ("False", "RollingOut"),
        ("True", "Serving"),
    ),
    (
        "the first Pod loads",
        snapshot(
            LOADING,
            readings={"minilm-2-b": Reading(ready=False, message="loading")},
            live=deployment(ready=0),
        ),
        ("False", "ModelLoading"),
        ("False", "ModelLoading"),
    ),
    (
        "an update waits for an accelerator",
        snapshot(pod(), STUCK, readings=SERVES, live=deployment(total=2, updated=1, ready=1)),
        ("False", "WaitingForAccelerator"),
        ("True", "Serving"),
    ),
    (
        "two vector spaces serve",
        snapshot(
            pod(),
            pod("minilm-2-b"),
            readings={"minilm-1-a": answering("sha256:one"), "minilm-2-b": answering("sha256:two")},
            live=deployment(replicas=2),
        ),
        ("False", "ReplicasDisagree"),
        ("True", "Serving"),
    ),
    (
        "ready by its probe, out of the operator's reach: no false alarm",
        snapshot(pod(), readings={"minilm-1-a": Reading(error="timeout")}, live=deployment()),
        ("True", "Ready"),
        ("True", "Serving"),
    ),
    (
        "one of two Pods is missing",
        snapshot(pod(), readings=SERVES, live=deployment(replicas=2, total=2, ready=1)),
        ("False", "Scaling"),
        ("True", "Serving"),
    ),
    (
        "the deadline passed",
        snapshot(
            pod(),
            LOADING,
            readings={**SERVES, "minilm-2-b": Reading(ready=False, message="loading")},
            live=deployment(total=2, updated=1, ready=1, progressing_reason="ProgressDeadlineExceeded"),
        ),
        ("False", "DeadlineExceeded"),
        ("True", "Serving"),
    ),
    (
        "suspended",
        snapshot(
            live=deployment(replicas=0),
            of=resource({"model": {"persistentVolumeClaim": {"claimName": "models"}}, "suspend": True}),
        ),
        ("False", "Suspended"),
        ("False", "Suspended"),
    ),
    (
        "no replicas are asked for: nobody is answered",
        snapshot(live=deployment(replicas=0), of=resource({**MODEL, "replicas": 0})),
        ("False", "NoPods"),
        ("False", "NoPods"),
    ),
    (
        "no replicas are asked for, and the last Pod is still there",
        snapshot(pod(), readings=SERVES, live=deployment(replicas=0, total=1), of=resource({**MODEL, "replicas": 0})),
        ("False", "NoPods"),
        ("True", "Serving"),
    ),
    (
        "the Deployment of that name is somebody else's",
        snapshot(live=deployment(uid="somebody-else")),
        ("False", "RollingOut"),
        ("False", "NoPods"),
    ),
]


@pytest.mark.parametrize(("state", "ready", "available"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_truth_table(state: Snapshot, ready: tuple[str, str], available: tuple[str, str]) -> None:
    judgement = judged(state)
    assert condition(judgement, "Ready") == ready
    assert condition(judgement, "Available") == available


@pytest.mark.parametrize(
    ("accepted", "applied", "reason"),
    [
        (Verdict(Truth.FALSE, Reason.INVALID_SPEC, "no source"), APPLIED, "InvalidSpec"),
        (ACCEPTED, Verdict(Truth.FALSE, Reason.NAME_TAKEN, "taken"), "NameTaken"),
        (ACCEPTED, Verdict(Truth.FALSE, Reason.FORBIDDEN, "rbac"), "Forbidden"),
    ],
)
def test_what_a_person_must_change_comes_first_and_stalls(accepted: Verdict, applied: Verdict, reason: str) -> None:
    state = snapshot(pod(), readings=SERVES, live=deployment())
    judgement = judged(state, accepted=accepted, applied=applied)
    assert condition(judgement, "Ready") == ("False", reason)
    assert condition(judgement, "Stalled") == ("True", reason)
    assert not any(entry["type"] == "Reconciling" for entry in judgement.status["conditions"])


def test_a_count_that_an_autoscaler_left_is_told() -> None:
    live = deployment(replicas=2, annotations={KEPT_REPLICAS: "1:2"}, managers={FIELD_MANAGER: True})
    readings = {**SERVES, "minilm-1-b": answering()}
    message = judged(snapshot(pod(), pod("minilm-1-b"), readings=readings, live=live)).verdicts["Ready"].message
    assert "2 Pods as the autoscaler left them, not the 1 of spec.replicas" in message
    asked = resource({**MODEL, "replicas": 2})
    judgement = judged(snapshot(pod(), pod("minilm-1-b"), readings=readings, live=live, of=asked))
    assert "autoscaler" not in judgement.verdicts["Ready"].message


def test_a_service_that_is_asked_for_no_pods_is_neither_on_its_way_nor_stuck() -> None:
    judgement = judged(snapshot(live=deployment(replicas=0), of=resource({**MODEL, "replicas": 0})))
    assert not {"Reconciling", "Stalled"} & judgement.verdicts.keys()
    assert "set spec.replicas to 1 or more" in judgement.verdicts["Ready"].message


def test_transition_time_moves_only_with_the_status() -> None:
    first = judged(snapshot(pod(), readings=SERVES, live=deployment())).status
    earlier = "2026-11-20T10:00:00Z"
    for entry in first["conditions"]:
        entry["lastTransitionTime"] = earlier
    same = judged(snapshot(pod(), readings=SERVES, live=deployment(), of=resource(**first))).status
    assert {entry["lastTransitionTime"] for entry in same["conditions"]} == {earlier}
    assert same == first
    lost = judged(snapshot(live=deployment(ready=0), of=resource(**first))).status
    moved = {entry["type"] for entry in lost["conditions"] if entry["lastTransitionTime"] != earlier}
    assert {"Ready", "Available", "ModelLoaded", "Reconciling"} <= moved
    assert "Accepted" not in moved


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ("Unknown", "WaitingForAutoscaler")),
        (
            [{"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "no metrics"}],
            ("False", "MetricUnavailable"),
        ),
        (
            [
                {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
                {"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas"},
            ],
            ("True", "LimitedByMaxReplicas"),
        ),
        (
            [
                {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
                {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange"},
            ],
            ("True", "ScalingActive"),
        ),
    ],
)
def test_the_autoscaler_is_repeated(conditions: list[dict[str, Any]], expected: tuple[str, str]) -> None:
    of = resource({"model": {"persistentVolumeClaim": {"claimName": "m"}}, "autoscaling": {"maxReplicas": 3}})
    autoscaler = owned({"metadata": {"name": "minilm"}, "status": {"conditions": conditions}})
    judgement = judged(snapshot(pod(), readings=SERVES, live=deployment(), autoscaler=autoscaler, of=of))
    assert condition(judgement, "ScalingActive") == expected
    assert condition(judgement, "Ready") == ("True", "Ready")


def test_fields_on_which_pods_disagree_are_left_out() -> None:
    readings = {"minilm-1-a": answering("sha256:one"), "minilm-2-b": answering("sha256:two")}
    status = judged(snapshot(pod(), pod("minilm-2-b"), readings=readings, live=deployment(replicas=2))).status
    assert "fingerprint" not in status["model"]
    assert status["model"]["dimensions"] == 384


def test_history_holds_five_rollouts_newest_first() -> None:
    status: dict[str, Any] = {}
    for revision in range(1, 9):
        state = snapshot(
            pod(), readings=SERVES, live=deployment(revision=revision), of=resource(**status) if status else None
        )
        status = judged(state).status
        assert (
            judged(snapshot(pod(), readings=SERVES, live=deployment(revision=revision), of=resource(**status))).status
            == status
        )
    assert [entry["deploymentRevision"] for entry in status["history"]] == [8, 7, 6, 5, 4]


def test_token_rate_survives_a_restarted_process() -> None:
    later = NOW + timedelta(seconds=10)
    readings = {
        "a": answering(figures=metrics(0.5, 1000, 10, later)),
        "b": answering(figures=metrics(0.7, 50, 5, later)),
    }
    load = load_of(readings, {"a": metrics(0, 500), "b": metrics(0, 9000)})
    assert load == Load(utilization_percent=60, tokens_per_second=55, queued_tokens=15)


def test_load_is_written_for_a_noticeable_change_and_at_most_once_a_minute() -> None:
    shown = Load(50, 1000, 0).as_status()
    busier = Load(90, 1500, 10)
    assert load_to_show(shown, busier, NOW - timedelta(seconds=30), NOW) == shown
    assert load_to_show(shown, busier, NOW - timedelta(seconds=60), NOW) == busier.as_status()
    assert load_to_show(shown, Load(52, 1010, 0), None, NOW) == shown
    assert load_to_show(None, busier, NOW, NOW) == busier.as_status()
    assert load_to_show(shown, None, None, NOW) is None


def test_a_foreign_pod_with_our_label_counts_for_nothing_and_is_named() -> None:
    intruder = pod("intruder", replica_set="")
    starting = pod("minilm-1-a", ready=False, container={"ready": False})
    readings = {"minilm-1-a": Reading(ready=False, message="loading"), "intruder": answering("sha256:other")}
    judgement = judged(snapshot(intruder, starting, readings=readings, live=deployment(ready=0)))
    assert condition(judgement, "Ready") == ("False", "ModelLoading")
    assert condition(judgement, "Available") == ("False", "ModelLoading")
    assert "model" not in judgement.status
    assert [(entry["pod"], entry["reason"]) for entry in judgement.status["problems"]] == [("intruder", "ForeignPod")]
    healthy = judged(snapshot(intruder, pod(), readings={**readings, **SERVES}, live=deployment()))
    assert condition(healthy, "Ready") == ("True", "Ready")


def test_a_crash_loop_past_its_deadline_is_stalled_with_its_cause() -> None:
    crashing = pod(
        "minilm-2-b",
        template_hash="2",
        ready=False,
        container={"ready": False, "running_since": None, "terminated_reason": "Error", "exit_code": 1, "restarts": 9},
    )
    live = deployment(total=2, updated=1, ready=1, progressing_reason="ProgressDeadlineExceeded")
    judgement = judged(snapshot(pod(), crashing, readings=SERVES, live=live))
    assert condition(judgement, "Ready") == ("False", "CrashLoop")
    assert condition(judgement, "Stalled") == ("True", "CrashLoop")


def test_an_automatic_rollout_that_replaces_in_place_says_so() -> None:
    in_place = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    live = deployment(total=2, updated=1, ready=1, strategy=in_place)
    judgement = judged(snapshot(pod(), LOADING, readings=SERVES, live=live))
    ready = next(entry for entry in judgement.status["conditions"] if entry["type"] == "Ready")
    assert "in place" in ready["message"]


def ready_of(judgement: Judgement) -> tuple[str, str, str]:
    entry = next(entry for entry in judgement.status["conditions"] if entry["type"] == "Ready")
    return entry["status"], entry["reason"], entry["message"]


def test_a_paused_deployment_is_ready_while_nothing_waits_and_named_when_something_does() -> None:
    held = deployment(progressing_reason="DeploymentPaused")
    held["spec"]["paused"], held["status"]["availableReplicas"] = True, 1
    assert ready_of(judged(snapshot(pod(), readings=SERVES, live=held)))[:2] == ("True", "Ready")
    held["status"]["updatedReplicas"] = 0
    status, reason, message = ready_of(judged(snapshot(pod(), readings=SERVES, live=held)))
    assert (status, reason) == ("False", "RollingOut")
    assert "paused" in message


def test_pods_that_cannot_be_created_are_told_although_there_is_none_to_tell_it() -> None:
    live = deployment(ready=0, total=0, updated=0, progressing_reason="FailedCreate")
    text = 'pods "minilm-1-" is forbidden: exceeded quota: none'
    live["status"]["conditions"].append({"type": "ReplicaFailure", "status": "True", "message": text})
    status, reason, message = ready_of(judged(snapshot(live=live)))
    assert (status, reason) == ("False", "Refused")
    assert "exceeded quota" in message


def test_out_of_the_operators_reach_makes_nothing_false() -> None:
    """Behind a mesh that keeps the operator out, a slow start is a start; only what cannot be known is Unknown."""
    judgement = judged(
        snapshot(LOADING, readings={"minilm-2-b": Reading(error="connection reset")}, live=deployment(ready=0))
    )
    assert condition(judgement, "Ready") == ("False", "Starting")
    assert condition(judgement, "Available") == ("False", "Starting")
    assert condition(judgement, "ModelLoaded") == ("Unknown", "EndpointUnreachable")


def test_one_pod_that_cannot_be_asked_leaves_the_common_space_unknown() -> None:
    """The others agree; what the last one serves nobody has seen."""
    readings = {"minilm-1-a": answering(), "minilm-1-b": Reading(error="no route to host")}
    judgement = judged(snapshot(pod(), pod("minilm-1-b"), readings=readings, live=deployment(replicas=2)))
    assert condition(judgement, "ModelLoaded") == ("Unknown", "EndpointUnreachable")
    message = next(it["message"] for it in judgement.status["conditions"] if it["type"] == "ModelLoaded")
    assert "minilm-1-b" in message
    assert "1 of 2 Pods" in message
    # Their kubelets call both ready: a network in the operator's way is no reason to call the service anything else.
    assert condition(judgement, "Ready") == ("True", "Ready")
    # Two that differ are False, whoever else is silent.
    apart = {**readings, "minilm-1-c": answering("sha256:two")}
    judgement = judged(
        snapshot(pod(), pod("minilm-1-b"), pod("minilm-1-c"), readings=apart, live=deployment(replicas=3))
    )
    assert condition(judgement, "ModelLoaded") == ("False", "ReplicasDisagree")


def test_a_problem_began_when_it_was_first_seen() -> None:
    """Not when its Pod was created: one may have served for weeks before."""
    broken = pod(ready=False, container={"running_since": None, "terminated_reason": "Error", "exit_code": 1})
    first = judged(snapshot(broken, live=deployment(ready=0))).status
    assert [entry["since"] for entry in first["problems"]] == ["2026-11-20T12:00:00Z"]
    later = snapshot(broken, live=deployment(ready=0), of=resource(**first))
    later = replace(later, now=NOW + timedelta(hours=1))
    assert judged(later).status["problems"] == first["problems"]
    # Another problem of the same container began later.
    killed = pod(ready=False, container={"running_since": None, "terminated_reason": "OOMKilled", "exit_code": 137})
    other = judged(replace(later, pods=(killed,))).status["problems"]
    assert [(entry["reason"], entry["since"]) for entry in other] == [("OutOfMemory", "2026-11-20T13:00:00Z")]


UNREAD = {
    ("v1", "Pod"): "pods is forbidden",
    ("apps/v1", "Deployment"): "deployments.apps is forbidden",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers is forbidden",
}


def test_what_may_not_be_read_is_unknown_and_nothing_false() -> None:
    of = resource({"model": {"persistentVolumeClaim": {"claimName": "m"}}, "autoscaling": {"maxReplicas": 3}})
    judgement = judged(replace(snapshot(of=of), unread=UNREAD), applied=Verdict(Truth.FALSE, Reason.FORBIDDEN, "rbac"))
    for kind in ("Available", "Progressing", "ModelLoaded", "ScalingActive"):
        assert condition(judgement, kind) == ("Unknown", "Forbidden"), kind
    assert condition(judgement, "Ready") == ("False", "Forbidden")
    assert not judgement.status.keys() & {"replicas", "readyReplicas", "updatedReplicas"}


def test_no_message_is_longer_than_the_api_server_admits() -> None:
    """One that is would have the whole status refused, at every look."""
    refused = Verdict(Truth.FALSE, Reason.REFUSED, "x" * 100_000)
    judgement = judged(snapshot(pod(), readings=SERVES, live=deployment()), applied=refused)
    assert max(len(entry["message"]) for entry in judgement.status["conditions"]) <= 4096


def test_the_count_of_who_serves_is_that_of_the_conditions_while_the_deployment_lags() -> None:
    state = snapshot(pod(), readings={"minilm-1-a": answering()}, live=deployment(ready=0))
    judgement = judged(state)
    assert judgement.verdicts["Available"].message == "1 Pod serving"
    assert judgement.status["readyReplicas"] == 1
    leaving = snapshot(pod(terminating=True), readings={"minilm-1-a": answering()}, live=deployment(ready=1))
    assert not judged(leaving).verdicts["Available"].holds
    assert judged(leaving).status["readyReplicas"] == 0


def test_a_container_that_was_killed_a_moment_ago_is_told_although_it_is_ready_again() -> None:
    ended = NOW - timedelta(minutes=3)
    killed = {"restarts": 7, "terminated_reason": "OOMKilled", "exit_code": 137, "ended_at": ended}
    judgement = judged(snapshot(pod(container=killed), readings=SERVES, live=deployment()))
    assert condition(judgement, "Ready") == ("True", "Ready")
    (entry,) = judgement.status["problems"]
    assert (entry["reason"], entry["restarts"]) == ("OutOfMemory", 7)
    assert "recovered after 7 restarts, the last end at 2026-11-20T11:57:00Z" in entry["message"]
    long_ago = {**killed, "ended_at": NOW - timedelta(minutes=11)}
    judgement = judged(snapshot(pod(container=long_ago), readings=SERVES, live=deployment()))
    assert "problems" not in judgement.status
