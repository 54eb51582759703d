"""The generated CRD: structural, small, described, and up to date on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from embedding_operator.api.borrowed import DEFINITIONS, REFERENCE
from embedding_operator.api.crd import custom_resource_definition, own_schema, structural_schema
from embedding_operator.api.kubernetes_schemas import definitions

from tools import generate
from tools.kubernetes_schemas import references

KEYWORDS = {
    "type", "format", "description", "properties", "required", "items", "additionalProperties", "enum", "pattern",
    "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties", "default", "anyOf",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-int-or-string",
    "x-kubernetes-validations",
}  # fmt: skip


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_schema_is_structural() -> None:
    for path, node in nodes(structural_schema()):
        assert set(node) <= KEYWORDS, path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path


def test_every_own_field_is_described() -> None:
    described = [path for path, node in nodes(own_schema()) if path and not path.endswith("[]") and path != ".metadata"]
    missing = [
        path
        for path, node in nodes(own_schema())
        if path in described and not node.get("description") and path != ".metadata"
    ]
    assert missing == []


def test_no_floats_and_every_list_has_a_type() -> None:
    for path, node in nodes(own_schema()):
        assert node.get("type") != "number", path
        if node.get("type") == "array":
            assert "x-kubernetes-list-type" in node, path


def test_every_rule_says_what_to_do() -> None:
    rules = [rule for _, node in nodes(own_schema()) for rule in node.get("x-kubernetes-validations", ())]
    assert rules
    assert all(len(rule["message"].split()) >= 3 for rule in rules)


def test_crd_stays_small_enough_for_client_side_apply() -> None:
    """`kubectl apply` keeps the object in an annotation, and annotations may hold 256 KiB in all."""
    assert len(json.dumps(custom_resource_definition())) < 200_000


def test_vendored_definitions_are_closed_and_used() -> None:
    reachable, pending = set(), list(DEFINITIONS)
    while pending:
        name = pending.pop()
        if name not in reachable and name in definitions():
            reachable.add(name)
            pending += references(definitions()[name])
    assert reachable == set(definitions())
    used = {node[REFERENCE] for _, node in nodes(own_schema()) if REFERENCE in node}
    assert used == set(DEFINITIONS)


def test_generated_files_are_up_to_date() -> None:
    assert generate.main(["--verify"]) == 0


def test_a_stale_file_is_named(tmp_path: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--verify"]) == 1
    assert "crds/embeddingservices.yaml" in (error := capsys.readouterr().err)
    assert "make generate" in error


def test_chart_copy_is_the_same_crd() -> None:
    text = generate.chart_crd_yaml()
    lines = [line for line in text.splitlines() if not line.strip().startswith("{{-")]
    document = yaml.safe_load("\n".join(lines))
    assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert document["metadata"].pop("labels") is None  # what stands below is a template of the chart's own labels
    assert document == custom_resource_definition()


def test_printer_columns_and_subresources() -> None:
    (version,) = custom_resource_definition()["spec"]["versions"]
    shown = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Ready", "Status", "Model", "Dim", "Replicas", "URL", "Age"]
    assert version["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
