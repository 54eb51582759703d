"""What the API server makes of the CRD: examples in, mistakes out, defaults stored, and the same verdict as Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedding_operator.api import parse
from embedding_operator.render import render
from hypothesis import HealthCheck, given, settings
from kubernetes.client.exceptions import ApiException

from tests.operator.helpers import CONTEXT, EXAMPLES, MINIMAL, example, resource
from tests.operator.refused import REFUSED
from tests.operator.strategies import specs

pytestmark = pytest.mark.cluster

STRICT = {"dry_run": "All", "query_params": [("fieldValidation", "Strict")]}


def create(services: Any, obj: dict[str, Any], namespace: str) -> dict[str, Any]:
    """What the API server would store, with unknown fields refused."""
    metadata = {"name": obj["metadata"]["name"], "namespace": namespace}
    stored: dict[str, Any] = services.create({**obj, "metadata": metadata}, namespace=namespace, **STRICT).to_dict()
    return stored


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_admitted(services: Any, namespace: str, path: Path) -> None:
    assert create(services, example(path), namespace)["spec"]


@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_with_the_same_words(services: Any, namespace: str, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiException) as refusal:
        create(services, resource(spec), namespace)
    assert refusal.value.status == 422
    assert words.rstrip(": ") in json.loads(refusal.value.body)["message"]


@pytest.mark.parametrize("name", ["a" * 51, "a" * 60, "9lives", "dot.ted"])
def test_names_that_cannot_name_a_service_are_refused(services: Any, namespace: str, name: str) -> None:
    with pytest.raises(ApiException, match="DNS-1035 label of at most 50 characters"):
        create(services, resource(name=name), namespace)


def test_the_longest_name_is_admitted(services: Any, namespace: str) -> None:
    create(services, resource(name="a" * 50), namespace)


def test_a_misspelt_field_is_refused(services: Any, namespace: str) -> None:
    with pytest.raises(ApiException, match="unknown field"):
        create(services, resource({**MINIMAL, "replica": 2}), namespace)


def test_defaults_are_stored(services: Any, namespace: str) -> None:
    spec = create(services, resource(), namespace)["spec"]
    assert spec["replicas"] == 1
    assert spec["runtime"] == {"type": "Bundled", "startupTimeoutSeconds": 1200, "drainTimeoutSeconds": 30}
    assert spec["accelerator"] == {"type": "ExtendedResource"}
    assert spec["service"] == {"type": "ClusterIP", "port": 8000}
    assert spec["disruptionBudget"] == {"enabled": True, "maxUnavailable": 1}
    assert "autoscaling" not in spec


@given(spec=specs)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_parser_admits_the_api_server_admits_and_renders_alike(
    services: Any, namespace: str, spec: dict[str, Any]
) -> None:
    """Defaults of the models are those of the CRD: a file renders as the stored object does."""
    stored = create(services, resource(spec), namespace)
    written = resource(spec)
    stored["metadata"] = written["metadata"]
    assert render(parse(stored), CONTEXT) == render(parse(written), CONTEXT)


def test_scale_and_status_are_subresources(api: Any, services: Any, namespace: str) -> None:
    services.create(resource() | {"metadata": {"name": "scaled"}}, namespace=namespace)
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 3}}
    services.scale.patch(body=scale, name="scaled", namespace=namespace, content_type="application/merge-patch+json")
    status = {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": "scaled"},
        "status": {"replicas": 2, "selector": "embedding-operator.io/service=scaled"},
    }
    services.status.server_side_apply(body=status, name="scaled", namespace=namespace, field_manager="test")
    stored = services.get(name="scaled", namespace=namespace).to_dict()
    assert stored["spec"]["replicas"] == 3
    assert stored["metadata"]["generation"] == 2
    read = services.scale.get(name="scaled", namespace=namespace).to_dict()
    assert read["status"] == {"replicas": 2, "selector": "embedding-operator.io/service=scaled"}


def test_kubectl_get_shows_the_columns(api: Any, services: Any, namespace: str) -> None:
    answer = api.request(
        "get",
        services.path(namespace=namespace),
        header_params={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
        serialize=False,
    )
    columns = json.loads(answer.data)["columnDefinitions"]
    shown = [column["name"] for column in columns if column["priority"] == 0]
    assert shown == ["Name", "Ready", "Status", "Model", "Dim", "Replicas", "URL", "Age"]
