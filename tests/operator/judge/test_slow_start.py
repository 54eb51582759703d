"""A start that takes longer than the ten minutes after which Deployments give up by default is no failure."""

from __future__ import annotations

from datetime import timedelta

import pytest
from embedding_operator.api import parse
from embedding_operator.observe.snapshot import Reading
from embedding_operator.render.probes import IMAGE_PULL_ALLOWANCE_SECONDS, probes, progress_deadline_seconds

from tests.operator.build import NOW, deployment, pod, resource, snapshot
from tests.operator.judge.test_status import condition, judged

DEFAULT, LONG = 1200, 7200


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, 599), (None, 601), (None, DEFAULT - 1), (LONG, DEFAULT + 601), (LONG, LONG - 1)],
)
def test_a_slow_start_within_its_own_budget_is_loading_and_nothing_worse(timeout: int | None, seconds: int) -> None:
    spec = {"model": {"persistentVolumeClaim": {"claimName": "models"}}}
    of = resource({**spec, "runtime": {"startupTimeoutSeconds": timeout}} if timeout else spec)
    began = NOW - timedelta(seconds=seconds)
    starting = pod(ready=False, created=began, container={"running_since": began})
    live = deployment(ready=0, progressing_reason="ReplicaSetUpdated")
    readings = {starting.name: Reading(ready=False, message="loading all-MiniLM-L6-v2: 3 of 9 files")}

    judgement = judged(snapshot(starting, readings=readings, live=live, of=of))
    assert condition(judgement, "Ready") == ("False", "ModelLoading")
    assert condition(judgement, "Progressing") == ("True", "RollingOut")
    assert "Stalled" not in {entry["type"] for entry in judgement.status["conditions"]}
    assert "problems" not in judgement.status
    (ready,) = (entry for entry in judgement.status["conditions"] if entry["type"] == "Ready")
    assert "3 of 9 files" in ready["message"]

    # Neither the kubelet nor the Deployment controller gives it up before.
    service = parse(of)
    startup = probes(service)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= (timeout or DEFAULT) > seconds
    assert progress_deadline_seconds(service) == (timeout or DEFAULT) + IMAGE_PULL_ALLOWANCE_SECONDS
