"""The operator's own HTTP endpoints: /healthz (alive), /readyz (watching), /metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from embedding_operator.errors import CannotListen
from embedding_operator.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Health:
    """Answers of the two probes: None is well, a text says what is wrong."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]


async def serve(metrics: Metrics, health: Health, *, host: str | None, port: int) -> web.AppRunner:
    """Start listening; stop with `cleanup()` of what is returned. Raises CannotListen when the port is taken."""

    def probe(check: Callable[[], str | None]) -> Callable[[web.Request], object]:
        async def handler(request: web.Request) -> web.Response:
            fault = check()
            return web.Response(status=200 if fault is None else 503, text=f"{fault or 'ok'}\n")

        return handler

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", probe(health.alive))  # type: ignore[arg-type]
    application.router.add_get("/readyz", probe(health.ready))  # type: ignore[arg-type]
    application.router.add_get("/metrics", scrape)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise CannotListen("operator's health and metrics", port, "EMBEDDING_OPERATOR_PORT", error) from error
    return runner
