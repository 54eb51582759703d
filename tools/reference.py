"""docs/reference/embeddingservice.md, from the CRD's schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from embedding_operator.api.borrowed import REFERENCE
from embedding_operator.api.constants import API_VERSION, KIND
from embedding_operator.api.crd import own_schema

Json = dict[str, Any]

INTRODUCTION = f"""<!-- Generated from operator/embedding_operator/api by `make generate`; do not edit. -->
# {KIND}

`apiVersion: {API_VERSION}`, `kind: {KIND}`. `kubectl explain embeddingservice.spec --recursive` prints the same.
Every field of `spec` may be left out unless it is marked as required. A default that follows from something else is
told in words; the others are stored by the API server.

Types written with a capital letter are Kubernetes' own, with their own schema and documentation: `kubectl explain
pod.spec` for Affinity, Container, EnvVar, EnvFromSource, Toleration, TopologySpreadConstraint, Volume and VolumeMount,
`kubectl explain hpa.spec --api-version=autoscaling/v2` for MetricSpec and HorizontalPodAutoscalerBehavior, `kubectl
explain networkpolicy.spec.ingress.from` for NetworkPolicyPeer. Quantities are amounts such as 500m or 2Gi.
"""


class Row(NamedTuple):
    """One field of the table."""

    path: str
    type: str
    default: str
    description: str
    validation: str


def reference() -> str:
    """The page: a table for the spec, one for the status, and the rules that span fields."""
    schema = own_schema()
    parts = [INTRODUCTION]
    for root in ("spec", "status"):
        parts.append(f"## {root}\n")
        parts.append(_table(list(_rows(schema["properties"][root], root))))
    parts.append("## Rules across fields\n")
    parts.append("The API server refuses an object that breaks one of these, with the sentence shown.\n")
    parts.append("| where | what to do |\n|---|---|\n" + "".join(_rules(schema, "")))
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    head = "| field | type | default | what it means | validation |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_cell(text) for text in row)} |\n" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rows(schema: Json, path: str) -> Iterator[Row]:
    for name, child in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        required = name in schema.get("required", ())
        yield _row(where, child, required=required)
        yield from _below(child, where)


def _below(schema: Json, where: str) -> Iterator[Row]:
    """Fields of an object or of a list's entries; borrowed types are Kubernetes' own and told elsewhere."""
    if schema.get(REFERENCE):
        return
    if schema.get("type") == "array":
        yield from _below(schema["items"], f"{where}[]")
    else:
        yield from _rows(schema, where)


def _row(path: str, schema: Json, *, required: bool) -> Row:
    default = "required" if required else (_literal(schema["default"]) if _has_default(schema) else "")
    return Row(f"`{path}`", _type(schema), default, schema.get("description", ""), "; ".join(_limits(schema)))


def _has_default(schema: Json) -> bool:
    return "default" in schema and schema["default"] != {}


def _literal(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _type(schema: Json) -> str:
    if schema.get(REFERENCE):
        return str(schema[REFERENCE]).rpartition(".")[2]
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity" if "[KMGTPE]i" in schema.get("pattern", "") else "integer or string"
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            return f"map of {_type(schema['additionalProperties'])}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case kind:
            return str(kind)


def _limits(schema: Json) -> Iterator[str]:
    if schema.get("type") == "array":
        if "maxItems" in schema:
            yield f"at most {schema['maxItems']} entries"
        yield from _limits(schema["items"])
    if "enum" in schema:
        yield "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "minimum" in schema and "maximum" in schema:
        yield f"{schema['minimum']} to {schema['maximum']}"
    elif "minimum" in schema:
        yield f"at least {schema['minimum']}"
    if "maxProperties" in schema:
        yield f"at most {schema['maxProperties']} entries"
    if "maxLength" in schema:
        yield f"at most {schema['maxLength']} characters"
    if "pattern" in schema and not schema.get("x-kubernetes-int-or-string"):
        yield f"`{schema['pattern']}`"


def _rules(schema: Json, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"| {f'`{path}`' if path else 'the resource'} | {_cell(rule['message'])} |\n"
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}".removeprefix("."))
    if schema.get("type") == "array":
        yield from _rules(schema["items"], f"{path}[]")
