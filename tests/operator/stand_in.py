"""A server in the API server's place, for answers that a real one cannot be brought to give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from embedding_operator.cluster import ClusterClient
from kubernetes.aio.client import ApiClient, Configuration

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def stand_in(answer: Answer, path: str = "/{path:.*}") -> AsyncIterator[ClusterClient]:
    """A client of a server that answers every GET below `path` so; both are closed at the end."""
    application = web.Application()
    application.router.add_get(path, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with ApiClient(Configuration(host=f"http://{host}:{port}")) as api:
            yield ClusterClient(api)
    finally:
        await runner.cleanup()
