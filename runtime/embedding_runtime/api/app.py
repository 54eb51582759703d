"""The application: routes, error handlers and middleware, put together."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from embedding_runtime import __version__
from embedding_runtime.api.embeddings import ApiLimits, EmbeddingHandler
from embedding_runtime.api.errors import ApiError, error_response
from embedding_runtime.api.information import InformationHandler
from embedding_runtime.api.middleware import RequestMiddleware, request_id_of
from embedding_runtime.api.state import ServiceState
from embedding_runtime.telemetry import Metrics


def create_app(state: ServiceState, metrics: Metrics, limits: ApiLimits | None = None) -> ASGIApp:
    """The ASGI application of a server whose model is loaded, or is still being loaded, behind `state`."""
    app = FastAPI(title="embedding-runtime", version=__version__, redirect_slashes=False, docs_url=None, redoc_url=None)
    embedding = EmbeddingHandler(state, metrics, limits or ApiLimits())
    information = InformationHandler(state, metrics)
    app.add_api_route("/v1/embeddings", embedding.embeddings, methods=["POST"])
    app.add_api_route("/api/v3/inference/embeddings", embedding.nugen, methods=["POST"])
    app.add_api_route("/v1/models", information.models, methods=["GET"])
    app.add_api_route("/v1/models/{model_id:path}", information.model, methods=["GET"])
    app.add_api_route("/v1/health/ready", information.ready, methods=["GET"])
    app.add_api_route("/v1/health/live", information.live, methods=["GET"])
    app.add_api_route("/v1/metrics", information.metrics, methods=["GET"])
    app.add_api_route("/v1/metadata", information.metadata, methods=["GET"])
    app.add_api_route("/v1/manifest", information.manifest, methods=["GET"])
    app.add_api_route("/v1/license", information.license, methods=["GET"])
    app.add_api_route("/v1/version", information.version, methods=["GET"])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    return RequestMiddleware(app, state, metrics)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request_id_of(request.scope))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "no such path; see /docs for what there is", 405: "this path does not have that method"}
    message = messages.get(error.status_code, str(error.detail))
    answer = ApiError(error.status_code, message, headers=dict(error.headers or {}))
    return error_response(answer, request_id_of(request.scope))


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads this answer; the status is what access logs and metrics count."""
    return Response(status_code=499)
