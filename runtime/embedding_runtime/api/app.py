"""The application: routes, error handlers and middleware, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from embedding_runtime import __version__
from embedding_runtime.api import description, docs, openapi
from embedding_runtime.api.embeddings import ApiLimits, EmbeddingHandler
from embedding_runtime.api.errors import ApiError, error_response
from embedding_runtime.api.information import InformationHandler, json_response
from embedding_runtime.api.keys import Gate, RateLimitError
from embedding_runtime.api.middleware import RequestMiddleware, request_id_of
from embedding_runtime.api.state import ServiceState
from embedding_runtime.telemetry import Metrics
from embedding_runtime.tracing import Tracer

Endpoint = Callable[[Request], Awaitable[Response]]
_EXAMPLE = {"model": "MODEL", "input": ["What is an embedding?"], "input_type": "query"}
_EMBED_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class _Route:
    """One route: `closed` ones need a key once keys are configured."""

    method: str
    path: str
    endpoint: Endpoint
    name: str
    summary: str
    answer: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    closed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class _DirectRoute(APIRoute):
    """A route whose endpoint takes the request and gives the response: nothing is to be parsed, injected or checked."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def create_app(
    state: ServiceState,
    metrics: Metrics,
    limits: ApiLimits | None = None,
    gate: Gate | None = None,
    tracer: Tracer | None = None,
) -> ASGIApp:
    """The ASGI application of a server whose model is loaded, or is still being loaded, behind `state`."""
    gate = gate or Gate(None)
    app = FastAPI(title="Embedding API", version=__version__, redirect_slashes=False, docs_url=None, redoc_url=None,
                  openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})  # fmt: skip
    app.router.route_class = _DirectRoute
    routes = _routes(EmbeddingHandler(state, metrics, gate, limits or ApiLimits()), InformationHandler(state, metrics))
    for route in routes:
        responses = openapi.errors(*route.errors)
        if route.answer is not None:
            responses[200] = {"model": route.answer}
        if route.name in ("ready", "live"):
            responses[503] = {"model": route.answer, "description": "Not yet, or not any more."}
        app.add_api_route(
            route.path,
            _closed(route.endpoint, gate, metrics) if route.closed else route.endpoint,
            methods=[route.method],
            operation_id=route.name,
            summary=route.summary,
            description=route.summary,
            responses=responses,
            response_model=None,
            openapi_extra=route.extra or None,
        )
    # The description names a path's parameters without their kind.
    closed = frozenset(route.path.replace(":path}", "}") for route in routes if route.closed)
    document = openapi.describe(app, closed=closed, keys_required=not gate.is_open)
    page = docs.page(document)

    async def describe(request: Request) -> Response:
        return json_response(document)

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"})

    app.add_api_route("/openapi.json", describe, include_in_schema=False, response_model=None)
    app.add_api_route("/docs", show, include_in_schema=False, response_model=None)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _defect)
    return RequestMiddleware(app, state, metrics, tracer)


def _routes(embedding: EmbeddingHandler, information: InformationHandler) -> list[_Route]:
    nugen = {"model": "MODEL", "input": "What is an embedding?"}
    return [
        _Route("POST", "/v1/embeddings", embedding.embeddings, "createEmbedding", "Vectors for texts.",
               description.EmbeddingResponse, _EMBED_ERRORS, True,
               openapi.request_body("EmbeddingRequest", _EXAMPLE)),
        _Route("POST", "/api/v3/inference/embeddings", embedding.nugen, "createNugenEmbedding",
               "Vectors for texts, in the shape of Nugen's API.", description.NugenResponse, _EMBED_ERRORS, True,
               openapi.request_body("NugenRequest", nugen)),
        _Route("GET", "/v1/models", information.models, "listModels", "The served model and its aliases.",
               description.ModelList, (401, 429), True),
        _Route("GET", "/v1/models/{model_id:path}", information.model, "getModel", "One name of the model.",
               description.ModelEntry, (401, 404, 429), True),
        _Route("GET", "/v1/health/ready", information.ready, "ready", "Whether the model may be used.",
               description.Readiness),
        _Route("GET", "/v1/health/live", information.live, "live", "Whether the process works.", description.Liveness),
        _Route("GET", "/v1/metrics", information.metrics, "metrics", "Prometheus metrics, or OpenMetrics when asked.",
               None, extra={"responses": {"200": {"description": "Metrics.", "content": {
                   kind: {"schema": {"type": "string"}}
                   for kind in ("text/plain", "application/openmetrics-text")}}}}),
        _Route("GET", "/v1/metadata", information.metadata, "metadata", "What is served, as NIM's tools ask for it.",
               description.Metadata),
        _Route("GET", "/v1/manifest", information.manifest, "manifest",
               "The identity of the vector space: fingerprint and files.", description.Manifest, (503,)),
        _Route("GET", "/v1/license", information.license, "license", "The license of this software.",
               description.License),
        _Route("GET", "/v1/version", information.version, "version", "Versions of the software and the API.",
               description.Version),
    ]  # fmt: skip


def _closed(endpoint: Endpoint, gate: Gate, metrics: Metrics) -> Endpoint:
    """Ask for a key first. 401 precedes every other check, the body's included."""

    async def checked(request: Request) -> Response:
        client = request.scope["client_name"] = gate.identify(request.headers.get("authorization"))
        try:
            gate.spend_request(client)
            return await endpoint(request)
        except RateLimitError:
            metrics.rejected("rate_limit")
            raise

    return checked


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request_id_of(request.scope))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "no such path; see /docs for what there is", 405: "this path does not have that method"}
    message = messages.get(error.status_code, str(error.detail))
    answer = ApiError(error.status_code, message, headers=dict(error.headers or {}))
    return error_response(answer, request_id_of(request.scope))


async def _defect(request: Request, error: Exception) -> Response:
    """Says nothing: the exception goes on to RequestMiddleware, which logs it."""
    return error_response(ApiError(500, "internal error"), request_id_of(request.scope))


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads this answer; the status is what access logs and metrics count."""
    return Response(status_code=499)
