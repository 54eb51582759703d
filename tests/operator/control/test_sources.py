"""Which namespaces an operator believes to know, when one of several is closed to it. Real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import NotLeading
from embedding_operator.control.consequences import retry_delay
from embedding_operator.control.sources import Sources
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics

from tests.operator.stand_in import stand_in


async def _wait(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - polls a clock
            await asyncio.sleep(0.01)


def test_a_namespace_that_was_lost_makes_nobody_unwell() -> None:
    """Its list is refused, at every resync. That is an answer, and no reason to restart what serves the others."""

    async def answer(request: web.Request) -> web.Response:
        if "/namespaces/lost/" in request.path:
            message = "embeddingservices is forbidden"
            return web.json_response({"kind": "Status", "reason": "Forbidden", "message": message}, status=403)
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    async def scenario() -> None:
        settings = Settings(watch_namespaces=("kept", "lost"))
        async with stand_in(answer) as client:
            sources = Sources(settings, client, Metrics(), lambda key, delay, urgency: None)
            kept, lost = (sources.mirror.scopes[EMBEDDING_SERVICES, name] for name in ("kept", "lost"))
            started = time.monotonic()
            await _wait(lambda: time.monotonic() > started)
            assert await sources._list_all(spread=0)
            assert lost.heard_at > started
            assert (kept.filled, lost.filled) == (True, False)
            # Before the client is closed, or a request of theirs would be left open.
            for check in (checks := tuple(sources._checks)):
                check.cancel()
            await asyncio.gather(*checks, return_exceptions=True)

    asyncio.run(scenario())


def test_a_write_that_the_fence_stopped_is_tried_again_soon() -> None:
    """A leader that renewed late leads on; its services must not wait a minute for it."""
    delay = retry_delay(NotLeading("not the leader"))
    assert delay is not None
    assert 0 < delay <= 5
