"""What happens to every request, whatever route it takes: an id, a count, and an answer even for our own defects."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_runtime.api.errors import ApiError, error_response
from embedding_runtime.api.state import Phase, ServiceState
from embedding_runtime.telemetry import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_log = logging.getLogger(__name__)


def request_id_of(scope: Scope) -> str:
    """The id of a request that passed RequestMiddleware."""
    return str(scope["request_id"])


class RequestMiddleware:
    """Outermost: request id, request counter, `connection: close` while draining, 500 for what nobody caught."""

    def __init__(self, app: ASGIApp, state: ServiceState, metrics: Metrics) -> None:
        self._app = app
        self._state = state
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self._state.phase is Phase.DRAINING:
                    headers["connection"] = "close"
                self._metrics.requests.labels(_route(scope), str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            _log.exception("request %s failed", request_id)
            if started:
                raise
            await error_response(ApiError(500, "internal error"), request_id)(scope, receive, answer)


def _route(scope: Scope) -> str:
    """The route's template: never what the client wrote."""
    return getattr(scope.get("route"), "path", "other")
