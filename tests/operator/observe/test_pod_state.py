"""What is read of a Pod object."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from embedding_operator.observe.pods import pod_state
from embedding_operator.render import render

from tests.operator.helpers import CONTEXT, MINIMAL, service


@pytest.mark.parametrize(
    ("runtime", "tls"),
    [
        ({}, False),
        ({"tls": {"secretName": "certificate"}}, True),
        (
            {"type": "NIM", "nim": {"image": {"repository": "nvcr.io/nim/x", "tag": "2"}}, "tls": {"secretName": "c"}},
            True,
        ),
    ],
)
def test_a_pod_speaks_what_its_own_probes_speak(runtime: dict[str, Any], tls: bool) -> None:
    """Not what the spec says by now: while TLS is switched, Pods of both kinds serve."""
    model = {} if runtime.get("type") == "NIM" else MINIMAL
    children = render(service({**model, "runtime": runtime}), CONTEXT)
    template = next(child for child in children if child["kind"] == "Deployment")["spec"]["template"]
    metadata = {**template["metadata"], "name": "a", "uid": "u", "creationTimestamp": "2026-11-20T11:00:00Z"}
    state = pod_state({"metadata": metadata, "spec": template["spec"]})
    assert state.tls is tls
    assert state.labels == template["metadata"]["labels"]


def test_what_a_pod_holds_is_what_the_scheduler_reserves_for_it() -> None:
    def container(name: str, **more: Any) -> dict[str, Any]:
        requests = more.pop("requests")
        return {"name": name, "resources": {"requests": requests}, **more}

    spec = {
        "initContainers": [
            container("logs", requests={"cpu": "500m"}, restartPolicy="Always"),
            container("fetch", requests={"cpu": "2", "memory": "1Ki"}),
        ],
        "containers": [
            container("runtime", requests={"cpu": "1", "nvidia.com/gpu": "2"}),
            container("sidecar", requests={"nvidia.com/gpu": "1"}),
            {"name": "bare"},
        ],
        "resourceClaims": [{"name": "accelerator", "resourceClaimTemplateName": "gpu"}, {"resourceClaimName": "x"}],
        "volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": "models"}}, {"name": "t", "emptyDir": {}}],
    }
    metadata = {"name": "a", "uid": "u", "creationTimestamp": "2026-11-20T11:00:00Z"}
    state = pod_state({"metadata": metadata, "spec": spec})
    assert state.requests == {"cpu": Fraction(5, 2), "memory": Fraction(1024), "nvidia.com/gpu": Fraction(3)}
    assert state.claim_templates == {"gpu"}
    assert state.volume_claims == {"models"}
