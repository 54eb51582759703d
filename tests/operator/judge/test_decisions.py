"""Replicas, rollout strategy and pinned defaults: what is decided from what runs now."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.judge.decisions import (
    KEPT_REPLICAS,
    RUNTIME_DEFAULTS,
    SCHEDULING_PATIENCE,
    TEMPLATE_HASH,
    Replicas,
    RuntimeDefaults,
    decide_defaults,
    decide_replicas,
    decide_strategy,
    template_hash,
)
from embedding_operator.render import Strategy

from tests.operator.build import NOW, deployment, pod

OURS = {FIELD_MANAGER: True}
NOT_OURS = {FIELD_MANAGER: False, "kube-controller-manager": True}


@pytest.mark.parametrize(
    ("case", "spec", "live", "expected"),
    [
        ("created", {"replicas": 2, "minimum": None}, None, Replicas(2)),
        ("scaled by spec", {"replicas": 3, "minimum": None}, deployment(replicas=2, managers=OURS), Replicas(3)),
        ("drifted", {"replicas": 2, "minimum": None}, deployment(replicas=7, managers=OURS), Replicas(2)),
        ("created with autoscaling", {"replicas": 1, "minimum": 2}, None, Replicas(2, keep="autoscaler:1")),
        (
            "autoscaling switched on: the live count is handed over",
            {"replicas": 1, "minimum": 1},
            deployment(replicas=5, managers=OURS),
            Replicas(None, hand_over=5, keep="autoscaler:1"),
        ),
        (
            "autoscaling on and settled: not ours",
            {"replicas": 1, "minimum": 1},
            deployment(replicas=5, managers=NOT_OURS),
            Replicas(None, keep="autoscaler:1"),
        ),
        (
            "scaled behind our back: drift, not an autoscaler",
            {"replicas": 1, "minimum": None},
            deployment(replicas=5, managers=NOT_OURS),
            Replicas(1),
        ),
        (
            "autoscaling switched off: the live count stays",
            {"replicas": 1, "minimum": None},
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: "autoscaler:1"}),
            Replicas(5, keep="1:5"),
        ),
        (
            "autoscaling switched off, and the count changed with it: the count is meant",
            {"replicas": 3, "minimum": None},
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: "autoscaler:1"}),
            Replicas(3),
        ),
        (
            "the count changed while autoscaling is on: it is remembered, and changes nothing",
            {"replicas": 3, "minimum": 1},
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: "autoscaler:1"}),
            Replicas(None, keep="autoscaler:3"),
        ),
        (
            "suspended, autoscaling switched off and the count changed at once",
            {"replicas": 3, "minimum": None, "suspended": True},
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: "autoscaler:1"}),
            Replicas(0, keep="3:3"),
        ),
        (
            "… and goes on staying",
            {"replicas": 1, "minimum": None},
            deployment(replicas=5, managers=OURS, annotations={KEPT_REPLICAS: "1:5"}),
            Replicas(5, keep="1:5"),
        ),
        (
            "… until spec.replicas changes",
            {"replicas": 2, "minimum": None},
            deployment(replicas=5, managers=OURS, annotations={KEPT_REPLICAS: "1:5"}),
            Replicas(2),
        ),
        (
            "suspended: the count is remembered",
            {"replicas": 1, "minimum": 1, "suspended": True},
            deployment(replicas=4, managers=NOT_OURS),
            Replicas(0, keep="1:4"),
        ),
        (
            "… also at the second look",
            {"replicas": 1, "minimum": 1, "suspended": True},
            deployment(replicas=0, managers=OURS, annotations={KEPT_REPLICAS: "1:4"}),
            Replicas(0, keep="1:4"),
        ),
        (
            "… whatever the Deployment is scaled to meanwhile",
            {"replicas": 3, "minimum": None, "suspended": True},
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: "3:3"}),
            Replicas(0, keep="3:3"),
        ),
        (
            "… and drift that nobody repaired before is not remembered",
            {"replicas": 3, "minimum": None, "suspended": True},
            deployment(replicas=5, managers=NOT_OURS),
            Replicas(0, keep="3:3"),
        ),
        (
            "suspended while autoscaling is switched off: the autoscaler's count is",
            {"replicas": 1, "minimum": None, "suspended": True},
            deployment(replicas=4, managers=NOT_OURS, annotations={KEPT_REPLICAS: "autoscaler:1"}),
            Replicas(0, keep="1:4"),
        ),
        (
            "scaled by spec while suspended",
            {"replicas": 4, "minimum": None, "suspended": True},
            deployment(replicas=0, managers=OURS, annotations={KEPT_REPLICAS: "1:1"}),
            Replicas(0, keep="4:4"),
        ),
        (
            "resumed with autoscaling: an autoscaler never leaves zero",
            {"replicas": 1, "minimum": 1},
            deployment(replicas=0, managers=OURS, annotations={KEPT_REPLICAS: "1:4"}),
            Replicas(4, keep="autoscaler:1"),
        ),
        (
            "resumed without",
            {"replicas": 3, "minimum": None},
            deployment(replicas=0, managers=OURS, annotations={KEPT_REPLICAS: "3:3"}),
            Replicas(3),
        ),
        ("scaled to zero", {"replicas": 0, "minimum": None}, deployment(replicas=2, managers=OURS), Replicas(0)),
        (
            "a broken annotation is no reason to fail",
            {"replicas": 2, "minimum": None},
            deployment(replicas=2, managers=OURS, annotations={KEPT_REPLICAS: "2:many"}),
            Replicas(2),
        ),
    ],
)
def test_replicas(case: str, spec: dict[str, Any], live: Any, expected: Replicas) -> None:
    assert decide_replicas(suspended=spec.pop("suspended", False), deployment=live, **spec) == expected


MISPLACED = {
    "created": NOW - SCHEDULING_PATIENCE - timedelta(seconds=1),
    "scheduled": False,
    "ready": False,
    "scheduling_reason": "Unschedulable",
    "scheduling_message": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
}
GPU = {"nvidia.com/gpu": Fraction(1), "cpu": Fraction(4)}
LATE = {
    **MISPLACED,
    "requests": GPU,
    "scheduling_message": "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 had taints.",
}
EARLY = {"created": NOW - timedelta(seconds=1), "scheduled": False, "ready": False}
NO_SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
HALF = {"total": 2, "updated": 1, "ready": 1}


@pytest.mark.parametrize(
    ("case", "asked", "live", "changes", "pods", "expected"),
    [
        ("named", "Recreate", deployment(), False, [], Strategy.RECREATE),
        ("created", "Auto", None, True, [], Strategy.SURGE),
        ("a new template begins with surge", "Auto", deployment(strategy=NO_SURGE), True, [], Strategy.SURGE),
        (
            "a new Pod waits, but not yet for long",
            "Auto",
            deployment(**HALF),
            False,
            [pod(), pod("new", template_hash="2", **EARLY)],
            Strategy.SURGE,
        ),
        (
            "a new Pod has waited too long",
            "Auto",
            deployment(**HALF),
            False,
            [pod(requests=GPU), pod("new", template_hash="2", **LATE)],
            Strategy.MAX_UNAVAILABLE,
        ),
        (
            "a new Pod fits nowhere, whatever is free: stopping the one that serves would not help",
            "Auto",
            deployment(**HALF),
            False,
            [pod(), pod("new", template_hash="2", **MISPLACED)],
            Strategy.SURGE,
        ),
        (
            "switched once, it stays for this rollout",
            "Auto",
            deployment(strategy=NO_SURGE, **HALF),
            False,
            [pod("new", template_hash="2", **EARLY)],
            Strategy.MAX_UNAVAILABLE,
        ),
        (
            "the rollout is over: nothing is evaluated again",
            "Auto",
            deployment(strategy=NO_SURGE),
            False,
            [pod()],
            Strategy.MAX_UNAVAILABLE,
        ),
        (
            "the very first Pod waits: nothing would be freed",
            "Auto",
            deployment(total=1, updated=1, ready=0),
            False,
            [pod("new", template_hash="2", **LATE)],
            Strategy.SURGE,
        ),
        (
            "a scale-up waits, the template is old: nothing would be freed",
            "Auto",
            deployment(replicas=2, total=2, updated=2, ready=1),
            False,
            [pod(requests=GPU), pod("second", **LATE)],
            Strategy.SURGE,
        ),
    ],
)
def test_strategy(case: str, asked: str, live: Any, changes: bool, pods: list[Any], expected: Strategy) -> None:
    assert decide_strategy(asked, deployment=live, template_changes=changes, pods=pods, now=NOW) is expected


NODES = "0/3 nodes are available: "


@pytest.mark.parametrize(
    ("case", "message", "old", "new", "expected"),
    [
        ("one of as many", "3 Insufficient nvidia.com/gpu.", {"requests": GPU}, {"requests": GPU}, True),
        (
            "a name that no node knows",
            "3 Insufficient nvidia.com/gpuu.",
            {"requests": GPU},
            {"requests": {"nvidia.com/gpuu": Fraction(1)}},
            False,
        ),
        (
            "another resource than the old Pod has",
            "3 Insufficient nvidia.com/mig-1g.5gb.",
            {"requests": GPU},
            {"requests": {"nvidia.com/mig-1g.5gb": Fraction(1)}},
            False,
        ),
        (
            "more of them than the old Pod holds",
            "3 Insufficient nvidia.com/gpu.",
            {"requests": GPU},
            {"requests": {"nvidia.com/gpu": Fraction(16)}},
            False,
        ),
        (
            "fewer than it holds",
            "3 Insufficient nvidia.com/gpu.",
            {"requests": {"nvidia.com/gpu": Fraction(4)}},
            {"requests": GPU},
            True,
        ),
        (
            "memory that no node has, beside the accelerator",
            "1 Insufficient memory, 3 Insufficient nvidia.com/gpu.",
            {"requests": {**GPU, "memory": Fraction(8)}},
            {"requests": {**GPU, "memory": Fraction(640)}},
            False,
        ),
        (
            "as many processors as before, beside the accelerator",
            "2 Insufficient cpu, 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available.",
            {"requests": GPU},
            {"requests": GPU},
            True,
        ),
        ("processors alone", "3 Insufficient cpu.", {"requests": GPU}, {"requests": GPU}, False),
        (
            "a volume of another zone",
            "3 node(s) had volume node affinity conflict.",
            {"volume_claims": frozenset({"models"})},
            {"volume_claims": frozenset({"models"})},
            False,
        ),
        (
            "a claim for one Pod at a time that the old one has",
            "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
            {"volume_claims": frozenset({"models"})},
            {"volume_claims": frozenset({"models"})},
            True,
        ),
        (
            "a claim for one Pod at a time that somebody else has",
            "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
            {"volume_claims": frozenset({"models"})},
            {"volume_claims": frozenset({"other"})},
            False,
        ),
        (
            "devices claimed as the old Pod's are",
            "3 cannot allocate all claims.",
            {"claim_templates": frozenset({"gpu"})},
            {"claim_templates": frozenset({"gpu"})},
            True,
        ),
        (
            "devices of another kind",
            "3 cannot allocate all claims.",
            {"claim_templates": frozenset({"gpu"})},
            {"claim_templates": frozenset({"gpuu"})},
            False,
        ),
        (
            "devices, where the old Pod has an extended resource",
            "3 cannot allocate all claims.",
            {"requests": GPU},
            {"claim_templates": frozenset({"gpu"})},
            False,
        ),
    ],
)
def test_one_that_serves_is_stopped_only_where_that_makes_room(
    case: str, message: str, old: dict[str, Any], new: dict[str, Any], expected: bool
) -> None:
    late = {**MISPLACED, **new, "scheduling_message": NODES + message}
    pods = [pod(**old), pod("new", template_hash="2", **late)]
    decided = decide_strategy("Auto", deployment=deployment(**HALF), template_changes=False, pods=pods, now=NOW)
    assert decided is (Strategy.MAX_UNAVAILABLE if expected else Strategy.SURGE)


OLD, NEW = RuntimeDefaults("runtime:1", "IfNotPresent", ("pull",)), RuntimeDefaults("runtime:2", "Always")
PINNED = deployment(annotations={RUNTIME_DEFAULTS: OLD.as_annotation()})


@pytest.mark.parametrize(
    ("live", "changes", "follow", "expected"),
    [
        (None, True, False, NEW),
        (PINNED, False, False, OLD),
        (PINNED, True, False, NEW),
        (PINNED, False, True, NEW),
        (deployment(annotations={RUNTIME_DEFAULTS: "not json"}), False, False, NEW),
        (deployment(annotations={RUNTIME_DEFAULTS: '{"image": "x"}'}), False, False, NEW),
    ],
)
def test_an_operator_upgrade_alone_restarts_nothing(
    live: Any, changes: bool, follow: bool, expected: RuntimeDefaults
) -> None:
    decided = decide_defaults(live, template_changes=changes, follow_operator=follow, offered=NEW)
    assert decided == expected


def test_the_template_hash_tells_templates_apart_and_ignores_key_order() -> None:
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})


def test_what_somebody_else_wrote_into_our_annotations_is_not_believed() -> None:
    """The image that runs is then taken from the template itself, so that putting it right restarts nothing."""
    ours = RuntimeDefaults("runtime:1", "IfNotPresent")
    live = deployment(
        annotations={RUNTIME_DEFAULTS: ours.as_annotation(), TEMPLATE_HASH: "abc"}, managers={FIELD_MANAGER: True}
    )
    container = {"name": "runtime", "image": "runtime:1", "imagePullPolicy": "IfNotPresent"}
    live["spec"]["template"] = {"spec": {"containers": [container]}}
    live["metadata"]["annotations"][RUNTIME_DEFAULTS] = RuntimeDefaults("evil:1", "Always").as_annotation()
    (record,) = live["metadata"]["managedFields"]
    del record["fieldsV1"]["f:metadata"]["f:annotations"][f"f:{RUNTIME_DEFAULTS}"]
    offered = RuntimeDefaults("runtime:2", "IfNotPresent")
    assert decide_defaults(live, template_changes=False, follow_operator=False, offered=offered) == ours
