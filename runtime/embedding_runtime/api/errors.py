"""Errors of the HTTP contract: one type, one body, one place that maps what the engine raises."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from embedding_runtime.engine.errors import (
    DeadlineError,
    ItemFailedError,
    QueueFullError,
    QueueTimeoutError,
    StoppedError,
)
from embedding_runtime.engine.model import InputTooLongError, InvalidImageError

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "internal_error",
    503: "unavailable_error",
}


class ApiError(Exception):
    """An answer other than 200. `param` names the field at fault; `headers` are added to the answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind or _TYPES.get(status, "invalid_request_error")
        self.headers = headers or {}


def unavailable(
    message: str,
    retry_after: float = 1.0,
    *,
    status: int = 503,
    kind: str | None = None,
    headers: dict[str, str] | None = None,
) -> ApiError:
    """A refusal that passes by itself; clients may try again after `retry_after` seconds."""
    return ApiError(
        status, message, kind=kind, headers={"retry-after": retry_after_header(retry_after), **(headers or {})}
    )


def retry_after_header(seconds: float) -> str:
    """Whole seconds, at least one."""
    return str(max(1, math.ceil(min(seconds, 3600))))


def from_engine(error: Exception) -> ApiError:
    """The answer for what preparing or embedding raised; anything unknown is our fault and says nothing."""
    match error:
        case InputTooLongError():
            return ApiError(
                400,
                f"Input length {error.length} exceeds maximum allowed token size {error.limit} "
                f"(input[{error.index}]); {_how_to_shorten(error)}",
                param="input",
                code="context_length_exceeded",
            )
        case InvalidImageError():
            return ApiError(400, str(error), param="input", code="invalid_image")
        case QueueFullError():
            return unavailable(
                "the queue is full; try again later", error.retry_after, status=429, kind="overloaded_error"
            )
        case DeadlineError():
            message = f"the server cannot answer this within {error.timeout:g} s; try again later, or send fewer inputs"
            return unavailable(message, error.retry_after, status=429, kind="overloaded_error")
        case QueueTimeoutError():
            return unavailable("the request waited too long for its turn; try again later", error.retry_after)
        case StoppedError():
            return unavailable(str(error))
        case ItemFailedError():
            return ApiError(500, f"the model failed on input[{error.index}]", param="input")
        case _:
            return ApiError(500, "internal error")


def _how_to_shorten(error: InputTooLongError) -> str:
    if not error.fixed:
        return 'shorten it, or let the server cut it with "truncate": "END" or "START"'
    if error.fixed <= error.limit:
        return (
            f"{error.fixed} of them are the image, which is never cut; shorten the text beside it, or let the server "
            'cut the text with "truncate": "END" or "START"'
        )
    return (
        f"{error.fixed} of them are the image, which is never cut; send one of other proportions (a square becomes "
        "the fewest tokens)"
    )


def error_response(error: ApiError, request_id: str) -> Response:
    """The body of the contract, whatever failed."""
    message = error.message if error.status != 500 else f"{error.message} (request {request_id})"
    body: dict[str, Any] = {
        "object": "error",
        "message": message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
        "request_id": request_id,
    }
    return Response(orjson.dumps(body), error.status, headers=error.headers, media_type="application/json")


def shown(value: object) -> str:
    """A client's value as it may appear in a message: printable and at most 64 characters."""
    text = value if isinstance(value, str) else str(value)
    clean = "".join(character if character.isprintable() else "�" for character in text[:65])
    return clean if len(clean) <= 64 else clean[:63] + "…"
