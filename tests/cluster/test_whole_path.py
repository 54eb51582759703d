"""From `kubectl apply` to a vector and back: one service through its life, with the chart, the operator and the runtime
as they run on any cluster."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cluster.services import LABEL, OPERATOR_USER, Services, service

pytestmark = pytest.mark.cluster

GOLDEN = [0.067657, 0.063496, 0.048713, 0.079305]
"""First components of "This is an example sentence", as the model's card publishes them."""

EXACT = {"bundled": {"precision": "Float32"}}
"""Auto would round where a node's CPU is made for bfloat16."""


@pytest.mark.tells("Ready", "Serving", "RolledOut", "ModelLoaded")
def test_a_service_lives_from_apply_to_delete(services: Services) -> None:
    # Created: the children exist, the status is the Pods' own words, and the vectors are the published ones.
    services.apply(service(replicas=1, runtime=EXACT))
    status = services.wait_ready()
    assert status["observedGeneration"] == services.existing("emb")["metadata"]["generation"]
    assert status["url"] == f"http://minilm.{services.namespace}.svc:8000/v1"
    assert status["model"]["id"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert status["model"]["dimensions"] == 384
    assert status["model"]["fingerprint"].startswith("sha256:")
    assert status["model"]["revision"] == "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    assert status["runtime"]["image"].startswith("embedding-runtime")
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (1, 1, 1)
    answer = services.client().embeddings.create(model=status["model"]["id"], input="This is an example sentence")
    assert np.allclose(answer.data[0].embedding[:4], GOLDEN, atol=2e-6)
    columns = services.kubectl("get", "emb").splitlines()
    assert columns[0].split() == ["NAME", "READY", "STATUS", "MODEL", "DIM", "REPLICAS", "URL", "AGE"]
    assert columns[1].split()[:5] == ["minilm", "True", "Ready", "sentence-transformers/all-MiniLM-L6-v2", "384"]

    # Load shows in the status once there is some.
    services.wait("the load is shown", lambda: "load" in services.status())

    # Updated: `kubectl wait` right after the apply waits for the new Pods, and requests are answered all the while.
    before = {pod["metadata"]["name"] for pod in services.pods()}
    model = {**service()["spec"]["model"], "aliases": ["mini"]}
    services.apply(service(replicas=1, model=model, runtime=EXACT))
    failures = []
    client = services.client()
    while services.condition().get("status") != "True":
        try:
            client.embeddings.create(model="sentence-transformers/all-MiniLM-L6-v2", input="still there?")
        except Exception as error:  # every failure counts, of whatever kind
            failures.append(error)
    assert failures == []
    after = {pod["metadata"]["name"] for pod in services.pods() if "deletionTimestamp" not in pod["metadata"]}
    assert before.isdisjoint(after)
    assert services.wait_answer("mini").model == status["model"]["id"]
    history = services.status()["history"]
    assert [entry["deploymentRevision"] for entry in history] == [2, 1]
    assert history[0]["fingerprint"] == history[1]["fingerprint"] == status["model"]["fingerprint"]

    # Scaled, by the scale subresource.
    services.kubectl("scale", "emb/minilm", "--replicas=2")
    services.wait_ready()
    assert services.status()["readyReplicas"] == 2

    # A Pod killed: it is replaced, and the status tells both.
    # Not one of the template before, which may still be on its way out.
    victim = next(pod["metadata"]["name"] for pod in services.pods() if "deletionTimestamp" not in pod["metadata"])
    services.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    services.wait("a Pod is missing", lambda: services.condition().get("status") == "False")
    assert services.condition("Available")["status"] == "True"
    services.wait_ready()

    # Deleted: owner references let the garbage collector remove everything.
    services.kubectl("delete", "emb", "minilm")
    kinds = "deployments,replicasets,services,poddisruptionbudgets,pods"
    services.wait(
        "the children are gone",
        lambda: not services.kubectl("get", kinds, "--selector", LABEL, "--output=name").strip(),
        timeout=90,
    )


def test_the_operator_never_asked_for_what_it_may_not_do(services: Services) -> None:
    services.apply(service(name="rights", suspend=True))
    services.wait_reason("Suspended", name="rights")
    refused = [
        f"{event['verb']} {event['requestURI']}"
        for event in services.cluster.audit_events(OPERATOR_USER)
        if (event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid"
    ]
    assert refused == []
