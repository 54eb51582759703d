"""Borrowed values in the form in which the API server stores them, so that nothing differs when nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from embedding_operator.api.kubernetes_schemas import QUANTITY, definitions
from embedding_operator.api.quantity import canonical, canonical_resource

CORE = "io.k8s.api.core.v1."
AUTOSCALING = "io.k8s.api.autoscaling.v2."
NETWORKING = "io.k8s.api.networking.v1."

NOT_STORED_WHEN_ZERO: Final = frozenset(
    {
        # Flags and numbers that are no pointers in Kubernetes' types, and `omitempty`: false and 0 mean absent.
        "failureThreshold",
        "hostPort",
        "initialDelaySeconds",
        "periodSeconds",
        "readOnly",
        "stdin",
        "stdinOnce",
        "successThreshold",
        "timeoutSeconds",
        "tty",
        # Texts of the same kind: an empty one means absent.
        "effect",
        "group",
        "host",
        "imagePullPolicy",
        "key",
        "medium",
        "operator",
        "prefix",
        "protocol",
        "pullPolicy",
        "scheme",
        "secretName",
        "subPath",
        "subPathExpr",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "value",
        "workingDir",
    }
)
"""Fields of borrowed types whose zero value the API server leaves out, from the types in k8s.io/api."""


def normalised(value: Any, definition: str) -> Any:
    """A copy of `value`, an instance of a vendored definition, as the API server stores it.

    Quantities are in canonical form; nulls, empty lists, empty maps and zero values that mean the same as nothing are
    left out. What is no quantity stays as it is: the API server judges it.
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
            return _normalise_object(value, schema)
        case list() | tuple():
            return [_normalise(entry, schema.get("items", {})) for entry in value]
        case _:
            return value


def _normalise_object(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    if others.get("$ref") == QUANTITY:
        return {key: _quantity(entry, canonical_resource) for key, entry in value.items()}
    required = schema.get("required", ())
    stored = {}
    for key, entry in value.items():
        own = properties.get(key, others)
        normal = _normalise(entry, own)
        omitted = key in properties and key in NOT_STORED_WHEN_ZERO and key not in required and not normal
        if not omitted and not _is_nothing(normal, own):
            stored[key] = normal
    return stored


def _is_nothing(value: Any, schema: dict[str, Any]) -> bool:
    """An empty object says something (`emptyDir: {}`); a null, an empty list and an empty map do not."""
    return value is None or value == [] or (value == {} and "additionalProperties" in schema)


def _quantity(value: Any, form: Callable[[Any], str]) -> Any:
    try:
        return form(value)
    except ValueError:
        return value
