"""The vendored schemas are those of the API server of the same version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from embedding_operator.api.kubernetes_schemas import FILE, definitions

from devcluster import Cluster
from tests.operator.helpers import ROOT
from tools import kubernetes_schemas

pytestmark = pytest.mark.cluster

VENDORED = ROOT / "operator" / "embedding_operator" / "api" / FILE


def test_extraction_repeats_what_is_vendored(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    text = VENDORED.read_text(encoding="utf-8")
    extracted = kubernetes_schemas.extract()
    if json.loads(extracted)["kubernetes"] == json.loads(text)["kubernetes"]:
        assert extracted == text
    else:
        assert removed(json.loads(text)["definitions"], json.loads(extracted)["definitions"]) == []


def removed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Fields that an API server of another version does not know; newer ones may know more."""
    return [
        f"{name}.{field}"
        for name, definition in old.items()
        for field in definition.get("properties", {})
        if field not in new.get(name, {}).get("properties", {})
    ]


def test_nothing_refers_to_what_is_not_vendored() -> None:
    for name, definition in definitions().items():
        for reference in kubernetes_schemas.references(definition):
            assert reference in definitions() or reference == kubernetes_schemas.QUANTITY, (name, reference)
