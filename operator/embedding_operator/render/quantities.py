"""Borrowed values in the form in which the API server stores them, so that nothing differs when nothing changed."""

from __future__ import annotations

from typing import Any

from embedding_operator.api.kubernetes_schemas import QUANTITY, definitions
from embedding_operator.api.quantity import canonical

CORE = "io.k8s.api.core.v1."
AUTOSCALING = "io.k8s.api.autoscaling.v2."


def normalised(value: Any, definition: str) -> Any:
    """A copy of `value`, an instance of a vendored definition, with every quantity in canonical form.

    What is no quantity stays as it is: the API server judges it.
    """
    return _normalise(value, {"$ref": definition})


def _normalise(value: Any, schema: dict[str, Any]) -> Any:
    reference = schema.get("$ref")
    if reference == QUANTITY:
        return _quantity(value)
    if reference is not None:
        schema = definitions()[reference]
    match value:
        case dict():
            properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
            return {key: _normalise(entry, properties.get(key, others)) for key, entry in value.items()}
        case list() | tuple():
            return [_normalise(entry, schema.get("items", {})) for entry in value]
        case _:
            return value


def _quantity(value: Any) -> Any:
    try:
        return canonical(value)
    except ValueError:
        return value
