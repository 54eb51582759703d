"""What of a long log is in a bundle. The API server's part is played by a listener on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from embedding_operator.commands.bundle import LOG_BYTES, Bundle, _pod

from tests.operator.stand_in import stand_in

LINES = 4000
POD: dict[str, Any] = {
    "metadata": {"namespace": "search", "name": "minilm-1-a"},
    "status": {"containerStatuses": [{"name": "runtime", "state": {"running": {}}, "restartCount": 0}]},
}


def test_the_end_of_a_log_is_kept() -> None:
    """It tells what happened. The API server's own limit on bytes keeps the beginning."""
    log = "".join(f"{number:05d} {'x' * 1000}\n" for number in range(LINES))

    async def answer(request: web.Request) -> web.Response:
        """As an API server does: first the last lines, then of those the first bytes."""
        text = "".join(log.splitlines(keepends=True)[-int(request.query["tailLines"]) :])
        return web.Response(text=text[: int(request.query.get("limitBytes", len(text)))])

    async def scenario() -> Bundle:
        bundle = Bundle(say=lambda text: None)
        async with stand_in(answer, "/api/v1/namespaces/search/pods/minilm-1-a/log") as client:
            await _pod(client, bundle, POD, "search/minilm/pods/minilm-1-a")
        return bundle

    bundle = asyncio.run(scenario())
    assert bundle.missing == []
    kept = bundle.files["search/minilm/pods/minilm-1-a/runtime.log"].splitlines()
    assert kept[-1].startswith(f"{LINES - 1:05d} ")
    assert kept[0][:5].isdecimal(), "it begins with a whole line"
    assert LOG_BYTES // 2 < sum(len(line) + 1 for line in kept) <= LOG_BYTES
