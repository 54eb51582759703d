"""Every field of the spec has its effect on the cluster: a service for each, its children read from the API server.

The table is that of the renderer's tests (tests/operator/render), held against what an installed operator applied and
the API server made of it: fields that a schema would drop, rename or refuse show here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster.services import OPERATOR_NAMESPACE, RELEASE, Services
from tests.operator.helpers import CONTEXT
from tests.operator.render.effects_of_runtime import RUNTIME_EFFECTS
from tests.operator.render.effects_of_workload import WORKLOAD_EFFECTS
from tests.operator.render.rendered import Json, Rendered

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

KINDS = (
    "deployments", "services", "horizontalpodautoscalers", "poddisruptionbudgets", "networkpolicies",
    "persistentvolumeclaims", "configmaps",
)  # fmt: skip
# A ServiceMonitor needs an API that clusters serve only in the tests that bring it (test_drift.py, test_rights.py).
EFFECTS = [effect for effect in (*RUNTIME_EFFECTS, *WORKLOAD_EFFECTS) if "monitoring" not in effect[1]]
NOTHING_RUNS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "nothing-runs"},
    "spec": {"hard": {"pods": "0"}},
}
"""Images and resources are made up."""

_OPERATOR = {"app.kubernetes.io/component": "operator", "app.kubernetes.io/part-of": "embedding-operator"}
_MAY_READ = {
    "podSelector": {"matchLabels": _OPERATOR},
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": OPERATOR_NAMESPACE}},
}
INSTALLED = {"networkPolicy.enabled": [{"from": [_MAY_READ], "ports": [{"port": "http", "protocol": "TCP"}]}]}
"""What the table has from a made-up installation."""


class Live(Rendered):
    """The children that the API server has."""

    def __init__(self, children: Mapping[str, Json]) -> None:
        self.children = dict(children)


def holds(live: Any, expected: Any) -> bool:
    """Whether what is there has all that is expected; the API server adds defaults, and an empty value for none."""
    if isinstance(expected, Mapping):
        return isinstance(live, Mapping) and all(holds(live.get(key), value) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        return (
            isinstance(live, list | tuple)
            and len(live) == len(expected)
            and all(holds(one, other) for one, other in zip(live, expected, strict=True))
        )
    return bool(live == expected) or (expected is None and live in ({}, []))


def as_in_the_table(live: Any, name: str, image: str) -> Any:
    """What is there, with the table's names for the service and for the operator's own runtime image."""
    if isinstance(live, Mapping):
        return {as_in_the_table(key, name, image): as_in_the_table(value, name, image) for key, value in live.items()}
    if isinstance(live, list | tuple):
        return [as_in_the_table(value, name, image) for value in live]
    return {name: "minilm", image: CONTEXT.runtime_image}.get(live, live) if isinstance(live, str) else live


def children_of(services: Services) -> dict[str, dict[str, Json]]:
    """The children of each service by their kinds, as the API server has them."""
    found: dict[str, dict[str, Json]] = {}
    for kind in KINDS:
        for child in services.cluster.objects(kind, services.namespace):
            for owner in child["metadata"].get("ownerReferences") or ():
                if owner["kind"] == "EmbeddingService":
                    found.setdefault(owner["name"], {})[child["kind"]] = child
    return found


def test_every_field_has_its_effect_on_the_cluster(services: Services) -> None:
    names = {f"field-{index}": effect for index, effect in enumerate(EFFECTS)}
    manifests = []
    for name, (_, spec, _, _) in names.items():
        manifests.append({
            "apiVersion": "embedding-operator.io/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"name": name}, "spec": spec,
        })  # fmt: skip
    services.apply(NOTHING_RUNS)
    services.apply(*manifests)
    applied: set[str] = set()

    def all_applied() -> bool:
        for service in services.cluster.objects("embeddingservices", services.namespace):
            conditions = {entry["type"]: entry for entry in (service.get("status") or {}).get("conditions") or ()}
            if conditions.get("Applied", {}).get("status") == "True":
                applied.add(service["metadata"]["name"])
        return applied >= names.keys()

    try:
        services.cluster.wait_until(all_applied, "every service applied", timeout=90, period=1)
    finally:
        assert names.keys() - applied == set()
    children = children_of(services)
    operator = services.cluster.get("deployment", RELEASE, OPERATOR_NAMESPACE) or {}
    variables = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    image = next(it["value"] for it in variables if it["name"] == "EMBEDDING_OPERATOR_RUNTIME_IMAGE")
    wrong = []
    for name, (path, _, look, expected) in names.items():
        try:
            live = look(Live(children[name]))
        except (KeyError, IndexError, ValueError, TypeError) as error:
            live = error
        expected = INSTALLED.get(path, expected)
        if not holds(as_in_the_table(live, name, image), expected):
            wrong.append((path, live, expected))
    assert not wrong, "\n".join(f"{path}: there is {live}, expected {expected}" for path, live, expected in wrong)

    # What a field had made goes when it is taken away again.
    name = next(name for name, (path, *_) in names.items() if path == "networkPolicy.enabled")
    services.kubectl("patch", f"emb/{name}", "--type=merge", "--patch", '{"spec":{"networkPolicy":{"enabled":false}}}')
    services.wait("the network policy is gone", lambda: services.get("networkpolicy", name) is None)
