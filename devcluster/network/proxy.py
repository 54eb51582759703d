"""A TCP proxy for one address and port: new connections take turns over the targets, established ones stay."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)
_CONNECT_TIMEOUT = 5.0
Targets = Callable[[], Sequence[tuple[str, int]]]


class _Half(asyncio.Protocol):
    """One side of a proxied connection; what it receives goes to the other side, with back-pressure both ways."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Half | None = None
        self.early: list[bytes] = []
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is None or self.other.transport is None:
            return True
        if self.other.ended:
            self.other.transport.close()
            return False
        self.other.transport.write_eof()
        return True  # the other direction may go on

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            if isinstance(exc, ConnectionResetError):
                self.other.transport.abort()
            else:
                self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            with contextlib.suppress(RuntimeError):
                self.other.transport.resume_reading()


class _Front(_Half):
    """The client's side."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._proxy.connecting(self)


def _same(half: _Half) -> _Half:
    return half


class Proxy:
    """Listens on one address and port and spreads connections over the targets, in turn.

    As with kube-proxy, connections are reset while there is no target, and also when the chosen target refuses: no
    other one is tried.
    """

    def __init__(self, address: str, port: int, targets: Targets) -> None:
        self.address, self.port = address, port
        self._targets = targets
        self._server: asyncio.Server | None = None
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the port is in use, or below 1024 and this user may not listen there.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Front(self), self.address, self.port, backlog=1024)

    def connecting(self, front: _Front) -> None:
        """A client has connected."""
        task = asyncio.get_running_loop().create_task(self._connect(front))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, front: _Front) -> None:
        assert front.transport is not None
        candidates = list(self._targets())
        self._turn += 1
        if candidates and await self._joined(front, *candidates[self._turn % len(candidates)]):
            return
        connection = front.transport.get_extra_info("socket")
        if connection is not None:  # a reset instead of an orderly end: nobody is there
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        front.transport.abort()

    async def _joined(self, front: _Front, host: str, port: int) -> bool:
        assert front.transport is not None
        back = _Half()
        try:
            await asyncio.wait_for(
                asyncio.get_running_loop().create_connection(functools.partial(_same, back), host, port),
                _CONNECT_TIMEOUT,
            )
        except (OSError, TimeoutError) as problem:
            _log.debug("%s:%s -> %s:%s: %s", self.address, self.port, host, port, problem)
            return False
        assert back.transport is not None
        front.other, back.other = back, front
        for data in back.early:
            front.transport.write(data)
        back.early.clear()
        if back.ended or back.transport.is_closing():
            front.transport.close()
        elif front.transport.is_closing():
            back.transport.close()
        else:
            front.transport.resume_reading()
        return True

    def close(self) -> None:
        """Stop to listen; established connections go on."""
        if self._server is not None:
            self._server.close()
