"""Extracts the schemas of borrowed types from a running API server's OpenAPI document."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from embedding_operator.api.borrowed import DEFINITIONS
from embedding_operator.api.kubernetes_schemas import QUANTITY

Json = dict[str, Any]

GROUPS = ("api/v1", "apis/autoscaling/v2", "apis/networking.k8s.io/v1")
KEPT = ("type", "format", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")
NAME_LENGTH = 63
"""Longest name of a container or volume (a DNS label); without it rules that compare names cost too much."""
NAMED = ("io.k8s.api.core.v1.Container", "io.k8s.api.core.v1.Volume")
SPECIAL: dict[str, Json] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    },
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {
        "type": "object",
        "properties": {
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}


def extract() -> str:
    """The vendored file's text, read with `kubectl` from the cluster of KUBECONFIG.

    Raises subprocess.CalledProcessError when kubectl cannot reach an API server.
    """
    version = json.loads(_get("/version"))["gitVersion"]
    served: dict[str, Json] = {}
    for group in GROUPS:
        served |= json.loads(_get(f"/openapi/v3/{group}"))["components"]["schemas"]
    kept: dict[str, Json] = {}
    pending = list(DEFINITIONS)
    while pending:
        name = pending.pop()
        if name in kept or name == QUANTITY:
            continue
        kept[name] = SPECIAL.get(name) or trim(served[name])
        if name in NAMED:
            kept[name]["properties"]["name"]["maxLength"] = NAME_LENGTH
        pending += references(kept[name])
    document = {"kubernetes": version, "definitions": dict(sorted(kept.items()))}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _get(path: str) -> str:
    return subprocess.run(["kubectl", "get", "--raw", path], check=True, capture_output=True, text=True).stdout


def trim(node: Json) -> Json:
    """What a CRD's structural schema needs of an OpenAPI node: no descriptions, no zero defaults, plain references."""
    if "allOf" in node:
        (node,) = node["allOf"]
    if "$ref" in node:
        return {"$ref": node["$ref"].rpartition("/")[2]}
    schema: Json = {key: node[key] for key in KEPT if key in node}
    if node.get("default"):
        # A key of a list-map that may be left out needs its default: a port's protocol.
        schema["default"] = node["default"]
    if "properties" in node:
        schema["properties"] = {name: trim(child) for name, child in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in node:
            schema[key] = trim(node[key])
    return schema


def references(node: Any) -> list[str]:
    """Names of the definitions a trimmed node refers to."""
    if isinstance(node, list):
        return [name for entry in node for name in references(entry)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [name for value in node.values() for name in references(value)]
