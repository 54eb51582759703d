"""Rendered children meet a real API server: admitted, stored as rendered, and applied again without a change."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from embedding_operator.act.difference import differences
from embedding_operator.act.ownership import lost
from embedding_operator.api import parse
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.api.kinds import DEPLOYMENTS
from embedding_operator.cluster import ClusterClient, apply_text
from embedding_operator.render import Child, Strategy, render
from hypothesis import HealthCheck, given, settings
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

from devcluster import Cluster
from tests.operator.helpers import CONTEXT, EXAMPLES, example, resource
from tests.operator.strategies import specs

pytestmark = pytest.mark.cluster

CONTROLLED = {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
"""Kinds of which a controller may write the status between two applies."""
NO_PODS = dataclasses.replace(CONTEXT, replicas=0)
NOT_INSTALLED = {"ServiceMonitor", "PrometheusRule"}


def children(obj: dict[str, Any], namespace: str) -> list[Child]:
    """The children the API server has an API for, in `namespace`. No Pod comes of them."""
    obj["metadata"]["namespace"] = namespace
    return [child for child in render(parse(obj), NO_PODS) if child["kind"] not in NOT_INSTALLED]


def created(services: Any, obj: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The object as stored. The garbage collector deletes children whose owner does not exist."""
    metadata = {"name": obj["metadata"]["name"]}
    stored: dict[str, Any] = services.create({**obj, "metadata": metadata}, namespace=namespace).to_dict()
    return stored


def apply(api: Any, child: Child, **extra: Any) -> dict[str, Any]:
    """Server-side apply as the operator does it, with unknown fields refused."""
    kind = api.resources.get(api_version=child["apiVersion"], kind=child["kind"])
    metadata = child["metadata"]
    stored: dict[str, Any] = kind.server_side_apply(
        apply_text(child),
        name=metadata["name"],
        namespace=metadata["namespace"],
        field_manager=FIELD_MANAGER,
        force_conflicts=True,
        query_params=[("fieldValidation", "Strict")],
        **extra,
    ).to_dict()
    return stored


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
def test_children_are_stored_as_rendered_and_applied_again_unchanged(
    api: Any, services: Any, namespace: str, path: Path
) -> None:
    for child in children(created(services, example(path), namespace), namespace):
        first = apply(api, child)
        assert missing(child, first) == []
        second = apply(api, child)
        if child["kind"] not in CONTROLLED:
            assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert second["metadata"].get("generation") == first["metadata"].get("generation")


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
    """And the operator, which compares before it writes, sees nothing to do."""
    for child in children(resource(spec), namespace):
        stored = apply(api, child, dry_run="All")
        assert missing(child, stored) == []
        assert list(differences(child, stored)) == []
        assert list(lost(child, stored, FIELD_MANAGER)) == []


@pytest.mark.parametrize("before", Strategy)
@pytest.mark.parametrize("after", Strategy)
def test_every_switch_of_strategy_is_accepted(
    api: Any, services: Any, namespace: str, before: Strategy, after: Strategy
) -> None:
    service = parse(created(services, resource(), namespace))
    for strategy in (before, after, before):
        context = dataclasses.replace(NO_PODS, strategy=strategy)
        child = next(child for child in render(service, context) if child["kind"] == "Deployment")
        child["metadata"]["namespace"] = namespace
        stored = apply(api, child)
        assert missing(child["spec"]["strategy"], stored["spec"]["strategy"]) == []
        assert stored["spec"]["strategy"]["type"] == child["spec"]["strategy"]["type"]


def test_the_operators_client_can_apply_any_text(cluster: Cluster, namespace: str) -> None:
    """An emoji in a prompt was refused once: the API server's YAML parser knows no surrogate pairs."""
    prompts = {"query": "\U0001f50d find: ", "passage": "\u00fc\ufeff \uffff\t\n"}
    obj = resource({"model": {"huggingFace": {"repository": "a/b"}, "prompts": prompts}})
    del obj["metadata"]["uid"]
    (child,) = [child for child in children(obj, namespace) if child["kind"] == "Deployment"]

    async def applied() -> dict[str, Any]:
        await config.load_kube_config(str(cluster.kubeconfig))
        async with ApiClient() as api:
            return await ClusterClient(api).apply(DEPLOYMENTS, child, manager=FIELD_MANAGER, force=True)

    stored = asyncio.run(applied())
    variables = {it["name"]: it.get("value") for it in stored["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["EMBEDDING_QUERY_PROMPT"] == prompts["query"]
    assert variables["EMBEDDING_PASSAGE_PROMPT"] == prompts["passage"]
