"""The CustomResourceDefinition, built from the models. Pure."""

from __future__ import annotations

from typing import Any, Final

from .borrowed import REFERENCE
from .constants import CATEGORY, GROUP, KIND, LIST_KIND, PLURAL, SHORT_NAME, SINGULAR, VERSION
from .kubernetes_schemas import inline
from .service import EmbeddingService

Json = dict[str, Any]

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_COLUMNS: Final = (
    ("Ready", "string", f"{_READY}.status", 0, "Whether the endpoint serves"),
    ("Status", "string", f"{_READY}.reason", 0, "Why, as one word"),
    ("Model", "string", ".status.model.id", 0, "Model id that clients send"),
    ("Dim", "integer", ".status.model.dimensions", 0, "Length of a full vector"),
    ("Replicas", "integer", ".status.replicas", 0, "Pods that exist"),
    ("URL", "string", ".status.url", 0, "Base URL for OpenAI clients"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation"),
    ("Serving", "integer", ".status.readyReplicas", 1, "Pods that serve"),
    ("Load%", "integer", ".status.load.utilizationPercent", 1, "Demand over measured capacity"),
    ("Fingerprint", "string", ".status.model.fingerprint", 1, "Fingerprint of the vector space"),
    ("Image", "string", ".status.runtime.image", 1, "Image of the runtime"),
)


def custom_resource_definition() -> Json:
    """The CRD as the API server takes it: apiextensions.k8s.io/v1, one version, status and scale subresources."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": LIST_KIND,
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": structural_schema()},
                }
            ],
        },
    }


def _column(name: str, type_: str, path: str, priority: int, description: str) -> Json:
    column: Json = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def structural_schema() -> Json:
    """The schema of the whole object without `$ref`, as apiextensions.k8s.io/v1 demands it."""
    schema = _with_borrowed(own_schema())
    assert isinstance(schema, dict)
    return schema


def own_schema() -> Json:
    """The same, but with borrowed types as one keyword (`borrowed.REFERENCE`) in place of their schema."""
    document = EmbeddingService.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(document, document["$defs"])
    schema["properties"] |= {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": KIND},
        "metadata": {"type": "object"},
    }
    schema["required"] = ["metadata", "spec"]
    return schema


def _structural(node: Json, definitions: dict[str, Json]) -> Json:
    """One node without references, nulls and titles."""
    node = _resolved(node, definitions)
    schema: Json = {}
    for key, value in node.items():
        match key:
            case "properties":
                schema[key] = {name: _structural(child, definitions) for name, child in value.items()}
            case "items" | "additionalProperties" if isinstance(value, dict):
                schema[key] = _structural(value, definitions)
            case "description":
                schema[key] = " ".join(value.split())
            case "title" | "default" | "propertyNames" | "$defs":
                pass
            case _:
                schema[key] = value
    if schema.get("type") == "integer" and "format" not in schema:
        schema["format"] = "int32" if schema.get("maximum", 2**31) < 2**31 else "int64"
    if (default := _default(node.get("default"), schema)) is not None:
        schema["default"] = default
    return schema


def _resolved(node: Json, definitions: dict[str, Json]) -> Json:
    """The node with `$ref`, `T | None` and borrowed types replaced by what they stand for; siblings win."""
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return _resolved(target, definitions) | {key: value for key, value in node.items() if key != "$ref"}
    options = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return _resolved(options[0], definitions) | {key: value for key, value in node.items() if key != "anyOf"}
    if REFERENCE in node:
        return {key: value for key, value in node.items() if key in (REFERENCE, "description")}
    return node


def _with_borrowed(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_borrowed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if REFERENCE in node:
        return inline(node[REFERENCE]) | {key: value for key, value in node.items() if key != REFERENCE}
    return {key: _with_borrowed(value) for key, value in node.items()}


def _default(default: Any, schema: Json) -> Any:
    """The default the API server shall store, or None.

    An object whose fields have defaults gets `{}`, from which the API server fills the fields in. Empty lists and maps
    mean the same as absent ones and are not stored.
    """
    if "properties" in schema:
        has_defaults = any("default" in child for child in schema["properties"].values())
        return {} if isinstance(default, dict) and has_defaults else None
    return None if default in ([], {}) else default
