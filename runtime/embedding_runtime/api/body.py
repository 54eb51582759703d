"""Reading request bodies within limits."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from embedding_runtime.api.errors import ApiError


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Raises ApiError 413 before more than `limit` bytes are held, 415 for what is not JSON."""
    _check_content_type(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than {limit} bytes; send fewer inputs per request", headers={"connection": "close"}
    )


def _check_content_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiError(415, "compressed bodies are not supported; send the JSON as it is")
    kind, _, parameters = request.headers.get("content-type", "application/json").partition(";")
    kind = kind.strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, "the content type must be application/json")
    if "charset=" in parameters.lower() and "utf-8" not in parameters.lower():
        raise ApiError(415, "the body must be UTF-8")
