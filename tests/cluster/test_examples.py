"""The examples as a reader uses them: `kubectl apply`, and the operator makes their children."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.replay import deliberately_refused
from tests.cluster.services import Services

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_PODS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}
"""What the examples' Pods do is other tests' matter, and not all of it can be had here."""


def test_every_example_is_applied_by_kubectl_and_gets_its_children(services: Services) -> None:
    services.apply(NO_PODS)
    services.wait("the quota counts", lambda: "used" in services.existing("quota", "no-pods").get("status", {}))
    # This release manages no monitoring, which one example asks for: what it is refused is named, the rest is made.
    with deliberately_refused(services.cluster):
        strict = ("--validate=strict", "--output=json")
        applied = json.loads(services.kubectl("apply", f"--filename={EXAMPLES}", *strict))["items"]
        assert len(applied) == len(list(EXAMPLES.glob("*.yaml")))
        for item in applied:
            name, monitoring = item["metadata"]["name"], item["spec"].get("monitoring") or {}
            monitored = any(part.get("enabled") for part in monitoring.values())
            condition = services.wait_reason("Forbidden" if monitored else "Applied", kind="Applied", name=name)
            assert ("servicemonitors" in condition["message"]) == monitored
            assert services.condition("Accepted", name)["status"] == "True", name
            for kind in ("deployment", "service", "pdb"):
                (owner,) = services.existing(kind, name)["metadata"]["ownerReferences"]
                assert owner["uid"] == item["metadata"]["uid"]
        # Applied once more, nothing is changed by it.
        again = services.kubectl("apply", f"--filename={EXAMPLES}").splitlines()
        assert {line.split()[-1] for line in again} == {"unchanged"}
        services.kubectl("delete", "emb", "--all")
