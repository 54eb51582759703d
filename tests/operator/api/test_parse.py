"""Objects from the cluster become models, or an InvalidSpec that names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedding_operator.api import ConditionType, EmbeddingServiceStatus, parse
from embedding_operator.errors import InvalidSpec

from tests.operator.helpers import EXAMPLES, MINIMAL, example, resource, service

FINGERPRINT = "sha256:" + "0" * 64
NIM = {"type": "NIM", "nim": {"image": {"repository": "nvcr.io/nim/nvidia/nv-embedqa-e5-v5", "tag": "1.6.0"}}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_parses(path: Path) -> None:
    assert parse(example(path)).name


def test_unknown_fields_are_tolerated() -> None:
    obj = resource({**MINIMAL, "fromTheFuture": {"x": 1}})
    obj["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert parse(obj).spec.replicas == 1


def test_a_status_of_another_version_counts_as_empty() -> None:
    assert parse({**resource(), "status": {"conditions": "none", "replicas": 3}}).status == EmbeddingServiceStatus()


def test_status_round_trips() -> None:
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Ready",
                "message": "",
                "lastTransitionTime": "2026-11-20T12:00:00Z",
                "observedGeneration": 3,
            }
        ],
        "runtime": {"imageID": "sha256:1"},
        "problems": [],
        "history": [{"deploymentRevision": 1, "rolledOutAt": "2026-11-20T12:00:00Z"}],
    }
    parsed = parse({**resource(), "status": status}).status
    assert parsed.to_dict() == status
    assert parsed.condition(ConditionType.READY) is not None
    assert parsed.condition(ConditionType.STALLED) is None


def test_served_model_id() -> None:
    assert service().served_model_id == "sentence-transformers/all-MiniLM-L6-v2"
    assert service({"model": {"persistentVolumeClaim": {"claimName": "m"}}}).served_model_id == "minilm"
    assert service({"model": {**MINIMAL["model"], "id": "mine"}}).served_model_id == "mine"


def test_url_follows_tls_and_port() -> None:
    assert service().url == "http://minilm.search.svc:8000/v1"
    spec = {**MINIMAL, "runtime": {"tls": {"secretName": "t"}}, "service": {"port": 443}}
    assert service(spec).url == "https://minilm.search.svc:443/v1"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "set one of model.huggingFace"),
    ({"model": {"id": "x"}}, "set one of model.huggingFace"),
    ({"model": {**MINIMAL["model"], "image": {"reference": "r"}}}, "set only one of huggingFace"),
    ({**MINIMAL, "replicas": -1}, "spec.replicas: "),
    ({**MINIMAL, "autoscaling": {"minReplicas": 5}}, "minReplicas must not be larger"),
    ({**MINIMAL, "runtime": {"type": "NIM"}}, "type NIM needs nim.image"),
    ({**MINIMAL, "runtime": {**NIM, "type": "Bundled"}}, "nim needs type: NIM"),
    ({**MINIMAL, "runtime": {**NIM, "bundled": {}}}, "bundled needs type: Bundled"),
    ({**MINIMAL, "runtime": NIM}, "brings its own model"),
    ({"runtime": NIM, "authentication": {"apiKeysSecretRef": {"name": "k"}}}, "knows no API keys"),
    ({"runtime": NIM, "vectorSpace": {"expectedFingerprint": FINGERPRINT}}, "reports no fingerprint"),
    ({"runtime": NIM, "autoscaling": {}}, "set autoscaling.metrics"),
    ({"runtime": NIM, "monitoring": {"alerts": {"enabled": True}}}, "disable monitoring.alerts"),
    ({"runtime": NIM, "monitoring": {"dashboard": {"enabled": True}}}, "disable monitoring.dashboard"),
    ({**MINIMAL, "runtime": {"env": [{"name": "HF_TOKEN", "value": "x"}]}}, "use the field"),
    ({**MINIMAL, "runtime": {"bundled": {"image": {"tag": "1"}}}}, "give repository together with tag or digest"),
    ({"runtime": {"type": "NIM", "nim": {"image": {"repository": "r"}}}}, "give tag or digest"),
    ({**MINIMAL, "accelerator": {"type": "None", "extendedResource": {}}}, "extendedResource needs type"),
    ({**MINIMAL, "accelerator": {"type": "ResourceClaim"}}, "need each other"),
    ({**MINIMAL, "accelerator": {"resourceClaimTemplateName": "x"}}, "need each other"),
    ({**MINIMAL, "resources": {"limits": {"nvidia.com/gpu": 1}}}, "must not name the accelerator's resource"),
    (
        {
            **MINIMAL,
            "accelerator": {"extendedResource": {"name": "example.com/gpu"}},
            "resources": {"requests": {"example.com/gpu": "1"}},
        },
        "must not name the accelerator's resource",
    ),
    (
        {
            **MINIMAL,
            "model": {**MINIMAL["model"], "cache": {"persistentVolumeClaim": {"claimName": "c"}, "emptyDir": {}}},
        },
        "not both",
    ),
    (
        {**MINIMAL, "podTemplate": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        "hostPath volumes are refused",
    ),
    ({**MINIMAL, "podTemplate": {"volumes": [{"name": "cache", "emptyDir": {}}]}}, "use another"),
    ({**MINIMAL, "podTemplate": {"volumeMounts": [{"name": "v", "mountPath": "/tmp"}]}}, "use another"),
    (
        {**MINIMAL, "podTemplate": {"sidecars": [{"name": "s", "securityContext": {"privileged": True}}]}},
        "privileged sidecars are refused",
    ),
    (
        {**MINIMAL, "podTemplate": {"initContainers": [{"name": "s", "securityContext": {"privileged": True}}]}},
        "privileged init containers are refused",
    ),
    ({**MINIMAL, "podTemplate": {"sidecars": [{"name": "runtime"}]}}, "container name runtime"),
    ({**MINIMAL, "podTemplate": {"initContainers": [{"name": "runtime"}]}}, "container name runtime"),
    ({**MINIMAL, "podTemplate": {"labels": {"embedding-operator.io/service": "x"}}}, "use another prefix"),
    ({"model": {"persistentVolumeClaim": {"claimName": "c", "path": "../x"}}}, "spec.model.persistentVolumeClaim.path"),
    ({"model": {"persistentVolumeClaim": {"claimName": "c", "path": "/x"}}}, "spec.model.persistentVolumeClaim.path"),
]
"""Specs that both the API server and the parser refuse, with words of the parser's message."""


@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        service(spec)
    assert words in refusal.value.message
    assert refusal.value.reason == "InvalidSpec"


@pytest.mark.parametrize("name", ["a" * 51, "9lives", "Upper", "dot.ted", "trailing-"])
def test_names_that_cannot_name_a_service_are_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="DNS-1035"):
        service(name=name)


def test_the_longest_name_is_accepted() -> None:
    assert service(name="a" * 50).name == "a" * 50
