"""Borrowed values in the form in which the API server stores them, so that nothing differs when nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedding_operator.api.kubernetes_schemas import QUANTITY, definitions
from embedding_operator.api.quantity import canonical, canonical_resource

CORE = "io.k8s.api.core.v1."
AUTOSCALING = "io.k8s.api.autoscaling.v2."


def normalised(value: Any, definition: str) -> Any:
    """A copy of `value`, an instance of a vendored definition, as the API server stores it.

    Quantities are in canonical form; nulls, empty lists and empty maps, which mean the same as nothing, are left out.
    What is no quantity stays as it is: the API server judges it.
    """
    return _normalise(value, {"$ref": definition})


def _normalise(value: Any, schema: dict[str, Any]) -> Any:
    reference = schema.get("$ref")
    if reference == QUANTITY:
        return _quantity(value, canonical)
    if reference is not None:
        schema = definitions()[reference]
    match value:
        case dict():
            properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
            if others.get("$ref") == QUANTITY:
                return {key: _quantity(entry, canonical_resource) for key, entry in value.items()}
            schemas = {key: properties.get(key, others) for key in value}
            entries = {key: _normalise(entry, schemas[key]) for key, entry in value.items()}
            return {key: entry for key, entry in entries.items() if not _is_nothing(entry, schemas[key])}
        case list() | tuple():
            return [_normalise(entry, schema.get("items", {})) for entry in value]
        case _:
            return value


def _is_nothing(value: Any, schema: dict[str, Any]) -> bool:
    """An empty object says something (`emptyDir: {}`); a null, an empty list and an empty map do not."""
    return value is None or value == [] or (value == {} and "additionalProperties" in schema)


def _quantity(value: Any, form: Callable[[Any], str]) -> Any:
    try:
        return form(value)
    except ValueError:
        return value
