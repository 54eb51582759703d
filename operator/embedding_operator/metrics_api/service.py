"""One metrics API per operator replica, leader or not: reads, serves, and renews its certificates."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from embedding_operator.api.kinds import CONFIG_MAPS
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.errors import CannotListen
from embedding_operator.metrics_api import front_proxy
from embedding_operator.metrics_api.directory import Directory
from embedding_operator.metrics_api.front_proxy import FrontProxy, NoFrontProxy
from embedding_operator.metrics_api.reader import Reader
from embedding_operator.metrics_api.server import BadCertificate, Server, read_identity
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.mirror import Mirror

log = logging.getLogger(__name__)

CERTIFICATE_SECONDS = 5.0
"""How often the files of the serving certificate are looked at."""
FRONT_PROXY_SECONDS = 60.0
"""How often the front proxy's authority is read from the cluster."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen, and where the serving certificate lies (tls.crt, tls.key)."""

    host: str | None
    port: int
    certificate: Path


@dataclass(slots=True)
class MetricsApi:
    """`run` works until it is cancelled, and raises CannotListen when the port is taken.

    `mirror` is kept up to date by others.
    """

    cluster: ClusterClient
    mirror: Mirror
    listening: Listening
    now: Callable[[], datetime]
    period: float
    """Seconds between two readings of a Pod."""
    _server: Server | None = field(default=None, init=False)

    def fault(self) -> str | None:
        """Why it does not serve yet; None when it does."""
        if self._server is None or self._server.identity is None:
            return "the metrics API is not listening yet"
        return None

    async def run(self) -> None:
        endpoints = EndpointReader(self.now)
        reader = Reader(Directory(self.mirror), endpoints, self.now, self.period)
        self._server = Server(
            self.listening.host, self.listening.port, self.listening.certificate, answer=reader.answer
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(reader.run())
                group.create_task(self._keep_identity(self._server))
        except ExceptionGroup as failures:
            taken = failures.subgroup(CannotListen)
            raise taken.exceptions[0] if taken is not None else failures from None
        finally:
            await self._server.close()
            await endpoints.aclose()

    async def _keep_identity(self, server: Server) -> None:
        """Start listening as soon as that is possible, and follow whatever is renewed."""
        proxy: FrontProxy | None = None
        read_at = 0.0
        while True:
            try:
                if proxy is None or time.monotonic() - read_at >= FRONT_PROXY_SECONDS:
                    proxy = await self._front_proxy()
                    read_at = time.monotonic()
                identity = read_identity(self.listening.certificate, proxy)
                if identity != server.identity:
                    renewed = server.identity is not None
                    await server.use(identity)
                    what = "uses its renewed certificates" if renewed else f"listens on port {self.listening.port}"
                    log.info("the metrics API %s", what)
            except ClusterError as error:
                log.warning("the metrics API cannot read who may ask it: %s", error.message)
            except (NoFrontProxy, BadCertificate) as error:
                log.warning("the metrics API %s: %s", "keeps its certificates" if server.identity else "waits", error)
            except OSError as error:
                setting = "EMBEDDING_OPERATOR_METRICS_API_PORT"
                raise CannotListen("metrics API", self.listening.port, setting, error) from error
            await asyncio.sleep(CERTIFICATE_SECONDS)

    async def _front_proxy(self) -> FrontProxy:
        return front_proxy.parse(await self.cluster.get(CONFIG_MAPS, front_proxy.NAMESPACE, front_proxy.CONFIG_MAP))
