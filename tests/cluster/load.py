"""A client that keeps asking, over plain HTTP/1.1 with keep-alive and without a single retry, and counts what fails."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Counts:
    """What came of the requests so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    longest: float = 0.0
    """Seconds of the slowest answer."""


class Connection:
    """One connection, opened anew only where the server said that it closes it, as HTTP/1.1 has it."""

    def __init__(self, url: str, counts: Counts) -> None:
        parts = urlsplit(url)
        self._place, self._counts = (parts.hostname or "", parts.port), counts
        self._http: http.client.HTTPConnection | None = None

    def ask(self, body: bytes) -> tuple[int, bytes]:
        if self._http is None:
            self._http = http.client.HTTPConnection(*self._place, timeout=60)
            self._counts.connections += 1
        self._http.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, content

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None


def _ask(connection: Connection, body: bytes, items: int, counts: Counts) -> None:
    began = time.monotonic()
    try:
        status, content = connection.ask(body)
        if status == 200 and len(json.loads(content)["data"]) == items:
            counts.answered += 1
            counts.longest = max(counts.longest, time.monotonic() - began)
            return
        counts.failures.append(f"{status} {content[:200]!r}")
    except Exception as error:  # every failure counts, of whatever kind
        counts.failures.append(f"{time.strftime('%X')} after {time.monotonic() - began:.1f} s: {error!r}")
    connection.close()


@contextmanager
def constant_load(url: str, *, model: str, threads: int = 4, pause: float = 0.03) -> Iterator[Counts]:
    """Requests while the block runs: each thread on its own connection, one after another, `pause` seconds between."""
    counts, over = Counts(), threading.Event()
    body = json.dumps({"model": model, "input": ["are you there?"], "input_type": "query"}).encode()

    def work() -> None:
        connection = Connection(url, counts)
        while not over.wait(pause):
            _ask(connection, body, 1, counts)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield counts
    finally:
        over.set()
        for worker in workers:
            worker.join()


def summary(counts: Counts) -> dict[str, Any]:
    """For a message."""
    return {"answered": counts.answered, "connections": counts.connections, "slowest": round(counts.longest, 2)}
