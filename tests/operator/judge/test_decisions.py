"""Replicas, rollout strategy and pinned defaults: what is decided from what runs now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.judge.decisions import (
    AUTOSCALER,
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
        ("created with autoscaling", {"replicas": 1, "minimum": 2}, None, Replicas(2, keep=AUTOSCALER)),
        (
            "autoscaling switched on: the live count is handed over",
            {"replicas": 1, "minimum": 1},
            deployment(replicas=5, managers=OURS),
            Replicas(None, hand_over=5, keep=AUTOSCALER),
        ),
        (
            "autoscaling on and settled: not ours",
            {"replicas": 1, "minimum": 1},
            deployment(replicas=5, managers=NOT_OURS),
            Replicas(None, keep=AUTOSCALER),
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
            deployment(replicas=5, managers=NOT_OURS, annotations={KEPT_REPLICAS: AUTOSCALER}),
            Replicas(5, keep="1:5"),
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
            deployment(replicas=4, managers=NOT_OURS, annotations={KEPT_REPLICAS: AUTOSCALER}),
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
            Replicas(4, keep=AUTOSCALER),
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
LATE = {**MISPLACED, "scheduling_message": "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 had taints."}
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
            [pod(), pod("new", template_hash="2", **LATE)],
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
            "a claim that the old Pod holds",
            "Auto",
            deployment(**HALF),
            False,
            [
                pod(),
                pod(
                    "new",
                    template_hash="2",
                    **{
                        **LATE,
                        "scheduling_message": "0/1 nodes are available: 1 node has "
                        "pod using PersistentVolumeClaim with the same name: in-use by another pod.",
                    },
                ),
            ],
            Strategy.MAX_UNAVAILABLE,
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
            [pod(), pod("second", **LATE)],
            Strategy.SURGE,
        ),
    ],
)
def test_strategy(case: str, asked: str, live: Any, changes: bool, pods: list[Any], expected: Strategy) -> None:
    assert decide_strategy(asked, deployment=live, template_changes=changes, pods=pods, now=NOW) is expected


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
