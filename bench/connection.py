"""One keep-alive HTTP/1.1 connection that costs next to nothing: httptools parses, callbacks instead of futures.

A general client takes as much processor time per request as the server under test, on the same processors; this one
takes some tens of microseconds, and the generator reports what it used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request. Times are of the monotonic clock, in seconds; status 0 is a broken connection."""

    due: float
    ended: float
    status: int
    size: int
    texts: int

    @property
    def seconds(self) -> float:
        """From when the request was due, so that a client that falls behind does not hide what users would wait."""
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send: the whole message, how many texts it holds and when it was due."""

    message: bytes
    texts: int
    due: float


def message(path: str, host: str, port: int, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """Sends one request at a time; `on_answer(connection, answer)` is called for each."""

    def __init__(self, on_answer: Callable[[Connection, Answer], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._size = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def send(self, call: Call) -> None:
        """Send a request on an idle connection."""
        assert self._transport is not None
        assert self._call is None
        self._call = call
        self._size = 0
        self._transport.write(call.message)

    def close(self) -> None:
        """Close without an answer."""
        self._call = None
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._finish(0)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._finish(0)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._size += len(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self._parser.should_keep_alive():
            self.open = False
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._finish(status)

    def _finish(self, status: int) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._on_answer(self, Answer(call.due, time.perf_counter(), status, self._size, call.texts))


async def connect(host: str, port: int, on_answer: Callable[[Connection, Answer], None]) -> Connection:
    """An open connection. Raises OSError when the server does not listen."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Connection(on_answer), host, port)
    return protocol
