"""A request on its way through the engine, and how its answer gets back to its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embedding_runtime.engine.errors import ItemFailedError
from embedding_runtime.engine.model import Matrix
from embedding_runtime.engine.work import Ticket


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one request, in input order, and what it took. Times are seconds."""

    vectors: Matrix
    queue_seconds: float
    inference_seconds: float
    batch_tokens: int


@dataclass(slots=True, eq=False)
class Pending:
    """A request whose answer is being put together. `started` is when its first item was taken up."""

    ticket: Ticket
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Embedded]
    vectors: Matrix | None = None
    started: float = 0.0
    inference_seconds: float = 0.0
    batch_tokens: int = 0
    error: Exception | None = None
    _batch_seconds: float = 0.0
    _ended: float = 0.0

    @property
    def queue_seconds(self) -> float:
        # Shared work may have been taken up before this request came.
        return max(0.0, self.started - self.ticket.arrived)

    def put(self, index: int, vectors: Matrix, row: int) -> None:
        """The vector of an input is row `row` of a batch."""
        if len(self.ticket.works) == 1:
            self.vectors = vectors[row : row + 1]
            return
        if self.vectors is None:
            self.vectors = np.empty((len(self.ticket.works), vectors.shape[1]), np.float32)
        self.vectors[index] = vectors[row]

    def fail(self, index: int, error: Exception) -> None:
        self.error = self.error or ItemFailedError(index, error)

    def took_part(self, started: float, seconds: float, tokens: int) -> None:
        """A batch with items of this request ran."""
        self.started = min(self.started, started) if self.started else started
        # Batches side by side take no longer than from the first one's start to the last one's end.
        self._ended = max(self._ended, started + seconds)
        self._batch_seconds += seconds
        self.inference_seconds = min(self._batch_seconds, self._ended - self.started)
        self.batch_tokens = max(self.batch_tokens, tokens)


def answer(requests: Iterable[Pending]) -> None:
    """Hand answers to their event loops: one call per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Pending]] = {}
    for request in requests:
        by_loop.setdefault(request.loop, []).append(request)
    for loop, completed in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, completed)


def _resolve(requests: list[Pending]) -> None:
    """Set the futures of completed requests; runs on their event loop."""
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        elif request.vectors is not None:
            request.future.set_result(
                Embedded(request.vectors, request.queue_seconds, request.inference_seconds, request.batch_tokens)
            )
