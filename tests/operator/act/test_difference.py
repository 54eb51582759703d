"""When a live object still is what was rendered."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from embedding_operator.act.difference import differences
from hypothesis import given
from hypothesis import strategies as st

WANTED: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}, "ownerReferences": [{"uid": "1", "controller": True}]},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "runtime",
                        "args": ["serve"],
                        "env": [{"name": "A", "value": "1"}],
                        "ports": [{"containerPort": 8000, "name": "http"}],
                        "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
                    }
                ],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "affinity": {},
            }
        },
    },
}


def live(change: Any = None) -> dict[str, Any]:
    result = copy.deepcopy(WANTED)
    result["metadata"]["uid"] = "u"
    result["spec"]["revisionHistoryLimit"] = 10
    container = result["spec"]["template"]["spec"]["containers"][0]
    container["ports"][0]["protocol"] = "TCP"
    container["resources"]["limits"] = {"cpu": "1.5", "memory": "1024Mi"}
    del result["spec"]["template"]["spec"]["affinity"]
    if change is not None:
        change(result, container)
    return result


def test_defaults_quantities_and_empty_objects_are_no_differences() -> None:
    assert list(differences(WANTED, live())) == []


def test_entries_of_others_in_merged_lists_are_left_alone() -> None:
    def sidecar(result: Any, container: Any) -> None:
        result["spec"]["template"]["spec"]["containers"].insert(0, {"name": "istio-proxy"})
        container["env"].append({"name": "INJECTED", "value": "x"})
        result["metadata"]["labels"]["mesh"] = "on"

    assert list(differences(WANTED, live(sidecar))) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda result, container: result["spec"].update(replicas=3), ".spec.replicas"),
        (lambda result, container: container.update(args=["serve", "--x"]), ".args"),
        (lambda result, container: container["env"].clear(), ".env[name=A]"),
        (lambda result, container: container["resources"]["limits"].update(cpu="2"), ".cpu"),
        (lambda result, container: result["metadata"]["labels"].pop("a"), ".metadata.labels.a"),
        (
            lambda result, container: result["spec"]["template"]["spec"]["tolerations"].append({"key": "z"}),
            "tolerations",
        ),
        (lambda result, container: container["ports"][0].update(name="other"), ".ports[containerPort=8000].name"),
    ],
)
def test_drift_is_seen(change: Any, path: str) -> None:
    found = list(differences(WANTED, live(change)))
    assert len(found) == 1
    assert found[0].endswith(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_everything_equals_itself(value: Any) -> None:
    assert list(differences(value, copy.deepcopy(value))) == []
