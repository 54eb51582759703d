"""The OpenAPI description: what FastAPI derives from the routes, plus requests, security and headers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from embedding_runtime.api.description import ErrorResponse
from embedding_runtime.api.schema import EmbeddingRequest, NugenRequest

_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is invalid; `param` names the field.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "A rate limit is reached, or the queue is full; try again after `retry-after` seconds.",
    500: "A defect of the server; the message names the request.",
    503: "The model is not ready, or the request waited too long; try again after `retry-after` seconds.",
}
_RETRY = {"retry-after": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"}}}
_TIMING = {
    "x-queue-time-ms": {"description": "Time in the queue.", "schema": {"type": "string"}},
    "x-inference-time-ms": {"description": "Time in the model.", "schema": {"type": "string"}},
    "x-batch-tokens": {"description": "Tokens of the largest batch the request was in.", "schema": {"type": "string"}},
}
_REQUEST_ID = {"x-request-id": {"description": "Names the request in logs.", "schema": {"type": "string"}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can fail with these statuses."""
    return {status: {"model": ErrorResponse, "description": _ERRORS[status]} for status in statuses}


def request_body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route whose JSON body follows a schema of this module."""
    content = {"schema": {"$ref": _REFERENCE.format(model=schema)}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def describe(app: FastAPI, *, closed: frozenset[str], keys_required: bool) -> dict[str, Any]:
    """The description of the application. `closed` are the paths that need a key once keys are configured."""
    document = get_openapi(
        title="Embedding API",
        version=app.version,
        summary="OpenAI and NIM compatible embeddings of one model",
        description="Answers POST /v1/embeddings as OpenAI and NVIDIA NIM do. Every error has the same shape.",
        license_info={"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        routes=app.routes,
    )
    _, requests = models_json_schema(
        [(EmbeddingRequest, "validation"), (NugenRequest, "validation")], ref_template=_REFERENCE
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(requests["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {
        "BearerAuth": {"type": "http", "scheme": "bearer", "description": "Needed once the server has API keys."}
    }
    bearer: list[dict[str, list[str]]] = [{"BearerAuth": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = (bearer if keys_required else [*bearer, {}]) if path in closed else []
            _finish_responses(operation["responses"], embeds=operation.get("requestBody") is not None)
    return document


def _finish_responses(responses: dict[str, Any], *, embeds: bool) -> None:
    responses.pop("422", None)
    for status, response in responses.items():
        response["headers"] = _REQUEST_ID | (_RETRY if status in ("429", "503") else {})
        if embeds and status == "200":
            response["headers"] |= _TIMING
