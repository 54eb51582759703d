"""What happens to every request, whatever route it takes: an id, a log line, a count, and always an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_runtime.api.errors import ApiError, error_response, unavailable
from embedding_runtime.api.state import STOPPING, Phase, ServiceState
from embedding_runtime.logs import request_id as log_request_id
from embedding_runtime.telemetry import Metrics
from embedding_runtime.tracing import Tracer

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# How much and how long to read on after an early refusal, so that a client that still sends sees the answer.
_LINGER_SECONDS = 5.0
_LAST_LINGER_SECONDS = 0.2
_LINGER_BYTES = 64 * 1024 * 1024
# Asked for every few seconds by probes and scrapers: not worth a line each.
_QUIET_ROUTES = {"/v1/health/ready", "/v1/health/live", "/v1/metrics"}
_log = logging.getLogger("embedding_runtime.access")


def request_id_of(scope: Scope) -> str:
    """The id of a request that passed RequestMiddleware."""
    return str(scope["request_id"])


class RequestMiddleware:
    """Outermost: request id, log line, counter, `connection: close` while draining, 500 for what nobody caught."""

    def __init__(self, app: ASGIApp, state: ServiceState, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._app = app
        self._state = state
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers_in = Headers(scope=scope)
        given = headers_in.get("x-request-id", "")
        request_id = scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        token = log_request_id.set(request_id)
        began = time.perf_counter()
        if self._tracer is not None:
            self._tracer.begin(scope)
        status = 0
        closing = whole = False
        counted = int(scope["path"] not in _QUIET_ROUTES)
        self._state.begun += counted
        self._state.working += counted

        async def answer(message: Message) -> None:
            nonlocal status, closing, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self._state.phase is Phase.DRAINING:
                    headers["connection"] = "close"
                closing = headers.get("connection") == "close"
            elif closing and not message.get("more_body", False) and _body_open(scope):
                # The answer is whole for the client; closing now would reset what it is still sending.
                await send({**message, "more_body": True})
                await _discard(receive, _LAST_LINGER_SECONDS if self._state.refusing else _LINGER_SECONDS)
                message = {"type": "http.response.body", "body": b""}
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        task = asyncio.current_task()
        assert task is not None

        def refuse() -> None:
            if not status:
                task.cancel()

        self._state.refusals.add(refuse)
        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            if status or not self._state.refusing:
                raise
            task.uncancel()
            await error_response(unavailable(STOPPING), request_id)(scope, receive, answer)
        except Exception:
            _log.exception("the request failed")
            if not status:
                await error_response(ApiError(500, "internal error"), request_id)(scope, receive, answer)
            elif not whole:
                raise
        finally:
            self._state.refusals.discard(refuse)
            self._state.working -= counted
            route = _route(scope)
            self._metrics.requests(route, str(status)).inc()
            if self._tracer is not None and route not in _QUIET_ROUTES:
                self._tracer.end(scope, _method(scope), route, status, headers_in)
            level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
            if _log.isEnabledFor(level):
                milliseconds = (time.perf_counter() - began) * 1000
                client = scope.get("client_name") or "-"
                _log.log(level, "%s %s %d %.1f ms, client %s", _method(scope), route, status, milliseconds, client)
            log_request_id.reset(token)


def _route(scope: Scope) -> str:
    """The route's template: never what the client wrote."""
    return getattr(scope.get("route"), "path", "other")


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"


def _body_open(scope: Scope) -> bool:
    connection = scope.get("connection")
    return connection is not None and connection.body_open


async def _discard(receive: Receive, seconds: float) -> None:
    """Read and forget the rest of a body, within bounds."""
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
