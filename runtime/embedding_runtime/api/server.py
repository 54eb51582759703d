"""Listening, signals and draining around the application."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from dataclasses import dataclass, field
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from embedding_runtime.api.protocol import ConnectionLimits, bounded_protocol
from embedding_runtime.api.state import ServiceState
from embedding_runtime.errors import EngineFailedError, FatalError, ListenError

# While draining, requests that were on their way still arrive: leave only after a quiet moment.
_QUIET_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to listen and how to stop. Times are seconds."""

    drain_timeout: float = 30.0
    keep_alive: int = 75
    tls_certificate: str | None = None
    tls_key: str | None = None
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets; an empty host means every address, IPv4 and IPv6. Raises ListenError."""
    where = f"{host or '*'}:{port}"
    try:
        if not host:
            return [_listen_everywhere(port)]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        return [_bind(family, address) for family, address in addresses]
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {where}: the address is unknown ({error.strerror})") from error
    except OSError as error:
        reason = "the port is in use; stop what uses it or choose another --port (EMBEDDING_PORT)"
        if error.errno != errno.EADDRINUSE:
            reason = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(f"cannot listen on {where}: {reason}") from error


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return _bind(socket.AF_INET6, ("::", port), dualstack=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bind(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 (every address is what was asked for)


def _bind(family: int, address: tuple[object, ...], *, dualstack: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dualstack else 1)
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


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
        self.fatal: FatalError | None = None

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
        return stop or self.should_exit

    def _drain_tick(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._drain_started is None:
            self._drain_started = now
            _log.info("draining for at most %.0f s", self._settings.drain_timeout)
        busy = bool(self.server_state.tasks) or self.server_state.total_requests != self._seen_requests
        self._seen_requests = self.server_state.total_requests
        if busy or self._quiet_since is None:
            self._quiet_since = now
        quiet = now - self._quiet_since >= _QUIET_SECONDS
        if quiet or now - self._drain_started >= self._settings.drain_timeout:
            self.should_exit = True
