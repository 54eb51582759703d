"""uvicorn's HTTP protocol with the bounds it lacks: on headers, on silence, on pipelining.

Stock uvicorn waits for ever for the rest of a header or body and holds headers of any size. Here headers must be
complete within `header_seconds` and `header_bytes`, a body may neither be silent for `body_silence_seconds` nor take
longer than `body_seconds` altogether, and the reading of an answer must go on and end likewise; all answers that wait
to be read hold at most `unread_bytes`. Of requests that are pipelined few are parsed ahead; the rest waits unread, and
all are answered in their order, also before a connection is closed for what came behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from embedding_runtime.api.unread import UnreadAnswers
from embedding_runtime.api.writing import HeadWithBody

# Bytes parsed before looking whether too many requests were in them.
_SLICE = 8 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection, but for `unread_bytes`, which is one of all of them together. Times are seconds."""

    header_seconds: float = 10
    header_bytes: int = 64 * 1024
    header_count: int = 200
    body_silence_seconds: float = 30
    body_seconds: float = 300
    answer_silence_seconds: float = 30
    answer_seconds: float = 300
    unread_bytes: int = 256 * 1024 * 1024
    pipelined: int = 16


class _Flow(FlowControl):
    """Lets nobody read on while requests wait for their turn; uvicorn does at every look at a request's body."""

    def __init__(self, transport: asyncio.Transport, is_held: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._is_held = is_held

    def resume_reading(self) -> None:
        if not self._is_held():
            super().resume_reading()


def bounded_protocol(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn's `http` option."""
    shared = {"limits": limits, "unread": UnreadAnswers(limits.unread_bytes)}
    return type("BoundedProtocol", (BoundedProtocol,), shared)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It is in the scope of its requests as `connection`."""

    limits = ConnectionLimits()
    unread = UnreadAnswers(limits.unread_bytes)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._headers_open = False
        self._header_size = 0
        self._body_open = False
        self._body_began = 0.0
        self._trailer_size = 0
        self._last_data = 0.0
        self._refused = False
        self._refusal: tuple[int, str] | None = None
        self._running: RequestResponseCycle | None = None
        self._unread = bytearray()
        self._write_timer: asyncio.TimerHandle | None = None
        self._unwritten = 0
        self._write_began = 0.0

    @property
    def body_open(self) -> bool:
        """Whether more of the body of the request that is being answered is expected."""
        return self._body_open and not self._refused and self.cycle is self._running

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.flow = _Flow(self.transport, lambda: bool(self.pipeline or self._unread))
        self._arm(self.limits.header_seconds, self._header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._unread.clear()
        self.unread.release(self)
        if not self.closed.done():
            self.closed.set_result(None)
        if self._running is not None:
            # uvicorn tells only the last request that was parsed.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._last_data = self.loop.time()
        if self._unread:
            self._unread += data
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Parse until enough requests wait for their turn, and keep the rest."""
        for position in range(0, len(data), _SLICE):
            if self._refused or self.parser is None:
                return
            if len(self.pipeline) >= self.limits.pipelined:
                self.flow.pause_reading()
                self._unread += data[position:]
                return
            piece = data if len(data) <= _SLICE else data[position : position + _SLICE]
            began = self._headers_open
            self._parse(piece)
            # Where in a piece a header begins is not known: that piece does not count.
            if began and self._headers_open and not self._refused:
                self._header_size += len(piece)
                if self._header_size > self.limits.header_bytes:
                    self._refuse(431, "the request's headers are too large")

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "this is not a valid HTTP request")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again without its wish for another protocol, HTTP/2 mostly, which any server may ignore.

        The parser takes what follows such a head for that protocol, but clients send their body first, Java's for one.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "this is not a valid HTTP request")
            return
        kept = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"connection")]
        head = [method, b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in kept:
            head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"".join([*head, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._refused:
            return
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]
        self._headers_open = True
        self._header_size = 0
        self._arm(self.limits.header_seconds, self._header_timeout)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_open:
            super().on_header(name, value)
            return
        # A trailer, which comes behind a chunked body. Nothing here means anything, and uvicorn would keep it.
        self._trailer_size += len(name) + len(value)
        if self._trailer_size > self.limits.header_bytes and not self._refused:
            self._refuse(431, "the request's trailers are too large")

    def on_headers_complete(self) -> None:
        if self._refused or self.parser.should_upgrade():
            return
        self._headers_open = False
        self._disarm()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.header_bytes or len(self.headers) > self.limits.header_count:
            self._refuse(431, "the request's headers are too large or too many")
        else:
            self._body_open = True
            self._trailer_size = 0
            self._body_began = self._last_data
            self._arm(self.limits.body_silence_seconds, self._body_timeout)
            super().on_headers_complete()
            if self.cycle is not None and self.scope["method"] != "HEAD":
                self.cycle.transport = HeadWithBody(self.cycle)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused or self.parser.should_upgrade():
            return
        self._body_open = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_writing()
        if self.transport.is_closing():
            return
        # What stood unread has had no chance to arrive.
        self._last_data = self.loop.time()
        if self._headers_open:
            self._arm(self.limits.header_seconds, self._header_timeout)
        if self._unread and len(self.pipeline) < self.limits.pipelined:
            data = bytes(self._unread)
            self._unread.clear()
            self._feed(data)
        self.flow.resume_reading()
        if self._refusal is not None and not self._is_busy():
            self._answer(*self._refusal)
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, self._once_written(app) if self.flow.write_paused else app)

    def _once_written(self, app: Any) -> Any:
        """The application, begun when the answers before have left: an answer that waits to be written is counted by
        nobody, and each connection could have one of any size."""

        async def begin(scope: Scope, receive: Receive, send: Send) -> None:
            await self.flow.drain()
            await app(scope, receive, send)

        return begin

    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def resume_when_idle(self) -> None:
        """Read on, so that a hang-up is noticed, unless that would pile up pipelined requests."""
        if not self._refused:
            self.flow.resume_reading()

    def _header_timeout(self) -> None:
        if self.flow.read_paused:
            # Late because we do not listen: requests before it are being answered.
            self._arm(self.limits.header_seconds, self._header_timeout)
        else:
            self._refuse(408, "the request's headers took too long")

    def _body_timeout(self) -> None:
        now = self.loop.time()
        silence = now - self._last_data
        if self.flow.read_paused:
            # Silent because we do not listen.
            self._last_data, silence = now, 0.0
        if silence < self.limits.body_silence_seconds and now - self._body_began < self.limits.body_seconds:
            self._arm(self.limits.body_silence_seconds - silence, self._body_timeout)
        else:
            self._refuse(408, "the request's body took too long")

    def _watch_writing(self) -> None:
        """An answer is written: see to it that what does not fit into the socket's buffer is read."""
        self._unwritten = self._unsent()
        if self._unwritten:
            self.unread.hold(self, self.transport.get_write_buffer_size, self.transport.abort)
        if self._unwritten and self._write_timer is None:
            self._write_began = self.loop.time()
            self._write_timer = self.loop.call_later(self.limits.answer_silence_seconds, self._check_writing)

    def _check_writing(self) -> None:
        self._write_timer = None
        left = self._unsent()
        if not left:
            self.unread.release(self)
            return
        if left >= self._unwritten or self.loop.time() - self._write_began >= self.limits.answer_seconds:
            # Closing would wait for the client, and hold the answer, for ever.
            self.transport.abort()
            return
        self._unwritten = left
        self._write_timer = self.loop.call_later(self.limits.answer_silence_seconds, self._check_writing)

    def _unsent(self) -> int:
        """Bytes of answers that the client has not taken; 0 when all of them are at least in the socket's buffer.

        The kernel's part counts: it lets us write again only when a third of its megabytes are free.
        """
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            return 0
        queued = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return waiting + int.from_bytes(queued, sys.byteorder)

    def _arm(self, seconds: float, action: Any) -> None:
        self._disarm()
        self._timer = self.loop.call_later(max(seconds, 0.01), action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application and close, once requests before this one have their answers.

        A response to this very request that has begun is only cut off.
        """
        self._refused = True
        self._disarm()
        self._unread.clear()
        if self.transport.is_closing():
            return
        if self._is_busy() and self.cycle is not self._running:
            if self._body_open:
                # The newest request in the queue will never be whole.
                self.pipeline.popleft()
            self._refusal = status, message
        elif self._is_busy() and not self._body_open:
            self._refusal = status, message
        else:
            # A request that has its answer, or the start of it, gets no second one.
            if not self._body_open or (self._is_busy() and not self.cycle.response_started):
                self._answer(status, message)
            self.transport.close()

    def _answer(self, status: int, message: str) -> None:
        request_id = secrets.token_hex(16)
        error = {
            "object": "error",
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
            "request_id": request_id,
        }
        body = orjson.dumps(error)
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
            f"x-request-id: {request_id}\r\n\r\n".encode()
            + body
        )
