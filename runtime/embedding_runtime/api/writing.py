"""Writing an answer's head and body at once.

uvicorn writes them one after the other: two system calls, and a client that is woken for half an answer.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class HeadWithBody:
    """What the answer of one request is written through, in the place of the connection's transport.

    The head waits for the first of the body. Not for answers to HEAD, which have no body to wait for.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None
        self._head_seen = False

    def write(self, data: bytes) -> None:
        """Write, or keep the head for the next write."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif self._cycle.response_started and not self._head_seen:
            self._head, self._head_seen = data, True
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """As the transport's."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close once all is written, a head that still waits too."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()
