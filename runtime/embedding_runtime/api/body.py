"""Reading request bodies within limits: of one body, and of all bodies held at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from embedding_runtime.api.errors import ApiError, unavailable


class BodyReader:
    """Reads bodies of at most `limit` bytes each, and `total` bytes of all requests in progress together."""

    def __init__(self, limit: int, total: int) -> None:
        self._limit = limit
        self._total = total
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[list[bytes]]:
        """The pieces of the body, accounted for until the block ends.

        Raises ApiError: 415 for what is not JSON, 413 before more than the limit is held, 429 when all together are too
        much; ClientDisconnect when the client hangs up.
        """
        _check_content_type(request)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        held = 0
        try:
            chunks: list[bytes] = []
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                held += len(chunk)
                self._held += len(chunk)
                if held > self._limit:
                    raise self._too_large()
                if self._held > self._total:
                    raise unavailable(
                        "too many large bodies are being received; try again later", 1, status=429,
                        kind="overloaded_error", headers={"connection": "close"},
                    )  # fmt: skip
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
            yield chunks
        finally:
            self._held -= held

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body is larger than {self._limit} bytes; send fewer inputs per request",
            headers={"connection": "close"},
        )


def _check_content_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiError(415, "compressed bodies are not supported; send the JSON as it is")
    kind, _, parameters = request.headers.get("content-type", "application/json").partition(";")
    kind = kind.strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, "the content type must be application/json")
    charset = _charset(parameters)
    # What JSON may be written in, only in other bytes: a bad body, like one that is UTF-16 without saying so.
    if charset.startswith(("utf-16", "utf-32", "utf16", "utf32")):
        raise ApiError(400, "the body must be UTF-8", code="invalid_json")
    if charset not in ("", "utf-8", "utf8", "us-ascii", "ascii"):
        raise ApiError(415, "the body must be UTF-8")


def _charset(parameters: str) -> str:
    """The charset among a content type's parameters, in lower case; empty when there is none."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""
