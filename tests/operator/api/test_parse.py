"""Objects from the cluster become models, or an InvalidSpec that names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedding_operator.api import ConditionType, EmbeddingServiceStatus, parse
from embedding_operator.errors import InvalidSpec

from tests.operator.helpers import EXAMPLES, MINIMAL, example, resource, service
from tests.operator.refused import REFUSED


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


@pytest.mark.parametrize("path", ["//tmp", "tmp", "/x/../tmp/y", "/etc//embedding/tls", "/./model/.", "/a/.."])
def test_a_reserved_mount_path_is_refused_however_it_is_written(path: str) -> None:
    with pytest.raises(InvalidSpec, match="use another"):
        service({**MINIMAL, "podTemplate": {"volumeMounts": [{"name": "v", "mountPath": path}]}})


@pytest.mark.parametrize("path", ["/tmpfiles", "/data", "/etc/ssl/certs", "/models", "/var/../srv", "/etc/embedding/x"])
def test_other_mount_paths_are_taken(path: str) -> None:
    service({**MINIMAL, "podTemplate": {"volumeMounts": [{"name": "v", "mountPath": path}]}})
