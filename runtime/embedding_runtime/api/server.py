"""Signals, draining, certificates and the end of the process around the application."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from embedding_runtime.api.listening import check_certificate
from embedding_runtime.api.protocol import ConnectionLimits, bounded_protocol
from embedding_runtime.api.state import ServiceState
from embedding_runtime.errors import EngineFailedError, FatalError, SettingsError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to listen and how to stop. Times are seconds.

    While draining, requests still arrive from those who have not heard of it: the server leaves `drain_quiet` after the
    last one, probes and scrapers not counted, and at `drain_timeout` at the latest.
    """

    drain_timeout: float = 30.0
    drain_quiet: float = 5.0
    keep_alive: int = 75
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_check: float = 10.0
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM drains: readiness falls, requests are answered until it is quiet or the deadline passed."""

    def __init__(self, app: ASGIApp, state: ServiceState, settings: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=bounded_protocol(settings.connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Nothing here asks where a request came from, so no header that says so is to be believed.
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive,
                timeout_graceful_shutdown=5,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._state = state
        self._settings = settings
        self._draining = False
        self._drain_started: float | None = None
        self._quiet_since: float | None = None
        self._seen_requests = 0
        self._certificate_state = self._certificate_stamp()
        self._certificate_checked = 0.0
        self.fatal: FatalError | None = None
        self.serving = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    def fail(self, error: FatalError) -> None:
        """End the process with this error; callable from any thread."""
        self.fatal = error
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, another one ends at once."""
        if self._draining or self._state.engine is None:
            self.should_exit = True
            self.force_exit = self._draining
            return
        self._draining = True
        self._state.drain()

    async def on_tick(self, counter: int) -> bool:
        stop = await super().on_tick(counter)
        engine = self._state.engine
        if engine is not None and engine.failure is not None and self.fatal is None:
            self.fail(EngineFailedError(f"the engine failed: {engine.failure}"))
        if self._draining:
            self._drain_tick()
        self._renew_certificate()
        return stop or self.should_exit

    def _drain_tick(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._drain_started is None:
            self._drain_started = now
            _log.info("draining for at most %.0f s", self._settings.drain_timeout)
        busy = self._state.working > 0 or self._state.begun != self._seen_requests
        self._seen_requests = self._state.begun
        if busy or self._quiet_since is None:
            self._quiet_since = now
        late = now - self._drain_started >= self._settings.drain_timeout
        if late:
            # What is left gets an answer that clients try again on, rather than a connection that breaks.
            self._state.refuse_all()
        if late or now - self._quiet_since >= self._settings.drain_quiet:
            self.should_exit = True

    def _certificate_stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when the certificate's files do."""
        paths = (self._settings.tls_certificate, self._settings.tls_key)
        statuses = [path.stat() for path in paths if path is not None and path.exists()]
        return tuple((status.st_mtime_ns, status.st_ino) for status in statuses)

    def _renew_certificate(self) -> None:
        """Use a certificate that was renewed in place for new connections."""
        now = asyncio.get_running_loop().time()
        certificate, key, context = self._settings.tls_certificate, self._settings.tls_key, self.config.ssl
        if certificate is None or key is None or context is None:
            return
        if now - self._certificate_checked < self._settings.tls_check:
            return
        self._certificate_checked = now
        stamp = self._certificate_stamp()
        if stamp == self._certificate_state:
            return
        try:
            # A pair that does not match must not replace one that does, so it is tried apart first.
            check_certificate(certificate, key)
            context.load_cert_chain(certificate, key)
        except (OSError, SettingsError) as error:
            _log.error("the renewed certificate cannot be used, the earlier one stays: %s", error)
        else:
            self._certificate_state = stamp
            _log.info("the certificate was renewed")
