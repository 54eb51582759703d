"""Objects from the cluster as models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from embedding_operator.errors import InvalidSpec

from .service import EmbeddingService


def parse(obj: Mapping[str, Any]) -> EmbeddingService:
    """The model of an EmbeddingService object as the API server returns it.

    Unknown fields are dropped. A status that does not parse (written by another version) counts as empty.
    Raises InvalidSpec with one line per fault, each naming the field.
    """
    try:
        return EmbeddingService.model_validate(dict(obj))
    except ValidationError as error:
        if obj.get("status") and all(fault["loc"][:1] == ("status",) for fault in error.errors()):
            return parse({key: value for key, value in obj.items() if key != "status"})
        raise InvalidSpec("\n".join(_line(fault) for fault in error.errors())) from error


def _line(fault: ErrorDetails) -> str:
    path = ".".join(str(step) for step in fault["loc"]) or "the resource"
    return f"{path}: {fault['msg'].removeprefix('Value error, ')}"
