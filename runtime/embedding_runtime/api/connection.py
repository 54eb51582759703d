"""Noticing that a client hung up while its request is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up first. Raises ClientDisconnect then."""
    gone = _gone(request)
    task = asyncio.current_task()
    assert task is not None
    working = True
    cancelled = False

    def hang_up(_: asyncio.Future[None]) -> None:
        nonlocal cancelled
        if working:
            cancelled = True
            task.cancel()

    gone.add_done_callback(hang_up)
    try:
        return await work
    except asyncio.CancelledError:
        # Not the hang-up alone: whoever else cancelled this task wants it to end as such.
        if not cancelled or task.uncancel():
            raise
        raise ClientDisconnect from None
    finally:
        working = False
        gone.remove_done_callback(hang_up)
        if gone is not _shared(request):
            gone.cancel()


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
