"""Whether our field manager still owns what was rendered, by the records of server-side apply."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from embedding_operator.act.ownership import lost

OURS = "embedding-operator"
WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "minilm", "namespace": "search", "labels": {"a": "b", "c": "d"}},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "containers": [{"name": "runtime", "args": ["serve"], "ports": [{"containerPort": 8000, "name": "http"}]}],
        "volumes": [],
    },
}
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:a": {}, "f:c": {}}},
    "f:spec": {
        "f:selector": {},
        "f:containers": {
            'k:{"name":"runtime"}': {
                ".": {},
                "f:name": {},
                "f:args": {},
                "f:ports": {
                    'k:{"containerPort":8000,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}}
                },
            }
        },
    },
}


def live(fields: dict[str, Any], manager: str = OURS, operation: str = "Apply") -> dict[str, Any]:
    return {"metadata": {"managedFields": [{"manager": manager, "operation": operation, "fieldsV1": fields}]}}


def test_nothing_is_lost_while_all_is_recorded_as_ours() -> None:
    assert list(lost(WANTED, live(FIELDS), OURS)) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("f:metadata", "f:labels", "f:a"), ".metadata.labels.a"),
        (("f:spec", "f:selector"), ".spec.selector"),
        (("f:spec", "f:containers", 'k:{"name":"runtime"}', "f:args"), ".spec.containers[0].args"),
        (
            (
                "f:spec",
                "f:containers",
                'k:{"name":"runtime"}',
                "f:ports",
                'k:{"containerPort":8000,"protocol":"TCP"}',
                "f:name",
            ),
            ".spec.containers[0].ports[0].name",
        ),
    ],
)
def test_what_somebody_took_is_named(path: tuple[str, ...], expected: str) -> None:
    fields = copy.deepcopy(FIELDS)
    part = fields
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    assert list(lost(WANTED, live(fields), OURS)) == [expected]


def test_an_object_that_only_others_set_is_lost_as_a_whole() -> None:
    assert list(lost(WANTED, live(FIELDS, manager="somebody"), OURS)) == ["."]
    assert list(lost(WANTED, live(FIELDS, operation="Update"), OURS)) == ["."]


def test_an_object_without_records_is_left_to_the_comparison_of_values() -> None:
    assert list(lost(WANTED, {"metadata": {}}, OURS)) == []
