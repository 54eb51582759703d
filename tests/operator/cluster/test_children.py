"""Rendered children meet a real API server: admitted, stored as rendered, and applied again without a change."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from embedding_operator.api import parse
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.render import Child, Strategy, render
from hypothesis import HealthCheck, given, settings

from tests.operator.helpers import CONTEXT, EXAMPLES, example, resource
from tests.operator.strategies import specs

pytestmark = pytest.mark.cluster

NOT_INSTALLED = {"ServiceMonitor", "PrometheusRule"}


def children(obj: dict[str, Any], namespace: str) -> list[Child]:
    """The children the API server has an API for, in `namespace`."""
    obj["metadata"]["namespace"] = namespace
    return [child for child in render(parse(obj), CONTEXT) if child["kind"] not in NOT_INSTALLED]


def apply(api: Any, child: Child, **extra: Any) -> dict[str, Any]:
    """Server-side apply as the operator does it, with unknown fields refused."""
    kind = api.resources.get(api_version=child["apiVersion"], kind=child["kind"])
    metadata = child["metadata"]
    stored: dict[str, Any] = kind.server_side_apply(
        wire(child),
        name=metadata["name"],
        namespace=metadata["namespace"],
        field_manager=FIELD_MANAGER,
        force_conflicts=True,
        query_params=[("fieldValidation", "Strict")],
        **extra,
    ).to_dict()
    return stored


def wire(child: Child) -> str:
    """JSON that the API server's YAML parser takes: it refuses surrogate pairs (an emoji as JSON escapes it) as well as
    some of the characters that JSON leaves as they are."""
    return re.sub("[\x7f-\uffff]", lambda it: f"\\u{ord(it[0]):04x}", json.dumps(child, ensure_ascii=False))


def missing(rendered: Any, stored: Any, path: str = "") -> list[str]:
    """Paths at which what was stored differs from what was rendered. Fields of the server's own are no difference."""
    if isinstance(rendered, dict) and isinstance(stored, dict):
        return [
            difference
            for key, value in rendered.items()
            for difference in missing(value, stored.get(key), f"{path}.{key}")
        ]
    if isinstance(rendered, list) and isinstance(stored, list) and len(rendered) == len(stored):
        pairs = enumerate(zip(rendered, stored, strict=True))
        return [difference for index, (one, two) in pairs for difference in missing(one, two, f"{path}[{index}]")]
    return [] if rendered == stored else [f"{path}: {rendered!r} became {stored!r}"]


def pod_of(deployment: Child) -> Child:
    """A Pod made from the Deployment's template, as its ReplicaSet would."""
    template, metadata = deployment["spec"]["template"], deployment["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": template["spec"],
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_children_are_stored_as_rendered_and_applied_again_unchanged(api: Any, namespace: str, path: Path) -> None:
    for child in children(example(path), namespace):
        first = apply(api, child)
        assert missing(child, first) == []
        second = apply(api, child)
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pods_are_admitted_by_pod_security_restricted(api: Any, namespace: str, path: Path) -> None:
    for child in children(example(path), namespace):
        if child["kind"] == "Deployment":
            if account := child["spec"]["template"]["spec"].get("serviceAccountName"):
                accounts = api.resources.get(api_version="v1", kind="ServiceAccount")
                accounts.create({"metadata": {"name": account}}, namespace=namespace)
            apply(api, pod_of(child), dry_run="All")


@given(spec=specs)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_children_of_any_spec_are_stored_as_rendered(api: Any, namespace: str, spec: dict[str, Any]) -> None:
    for child in children(resource(spec), namespace):
        assert missing(child, apply(api, child, dry_run="All")) == []


@pytest.mark.parametrize("before", Strategy)
@pytest.mark.parametrize("after", Strategy)
def test_every_switch_of_strategy_is_accepted(api: Any, namespace: str, before: Strategy, after: Strategy) -> None:
    service = parse(resource())
    for strategy in (before, after, before):
        context = dataclasses.replace(CONTEXT, strategy=strategy)
        child = next(child for child in render(service, context) if child["kind"] == "Deployment")
        child["metadata"]["namespace"] = namespace
        stored = apply(api, child)
        assert missing(child["spec"]["strategy"], stored["spec"]["strategy"]) == []
        assert stored["spec"]["strategy"]["type"] == child["spec"]["strategy"]["type"]
