"""Noticing that a client hung up while its request is worked on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, cancelled when the client hangs up first. Raises ClientDisconnect then."""
    task: asyncio.Future[Any] = asyncio.ensure_future(work)
    gone: asyncio.Future[Any] = _gone(request)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        result: T = task.result()
        return result
    finally:
        for future in (task, gone):
            if not future.done() and future is not _shared(request):
                future.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await future


def _gone(request: Request) -> asyncio.Future[None]:
    """Done when the client is gone: the connection's own future, or behind another server, a reader of messages."""
    closed = _shared(request)
    if closed is None:
        return asyncio.ensure_future(_disconnected(request))
    request.scope["connection"].resume_when_idle()
    return closed


def _shared(request: Request) -> asyncio.Future[None] | None:
    connection = request.scope.get("connection")
    return None if connection is None else connection.closed


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
