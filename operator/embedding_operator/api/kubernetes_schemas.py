"""The vendored schemas of types borrowed from Kubernetes, as the API server itself describes them."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final

from .quantity import SCHEMA as QUANTITY_SCHEMA

FILE: Final = "kubernetes_schemas.json"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """Definition name to schema. References between definitions are `{"$ref": name}`."""
    document = json.loads(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = document["definitions"]
    return found


def inline(name: str) -> dict[str, Any]:
    """A definition with every reference replaced by what it refers to, as a structural schema needs it."""
    if name == QUANTITY:
        return dict(QUANTITY_SCHEMA)
    resolved = _inline(definitions()[name])
    assert isinstance(resolved, dict)
    return resolved


def _inline(node: Any) -> Any:
    if isinstance(node, list):
        return [_inline(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return inline(node["$ref"])
    return {key: _inline(value) for key, value in node.items()}
