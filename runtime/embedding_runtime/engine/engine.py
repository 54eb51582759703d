"""The engine: requests come from an event loop, one thread runs the model, answers go back once per batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedding_runtime.engine.errors import ItemFailedError, QueueFullError, QueueTimeoutError, StoppedError
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import Item, Matrix, Model
from embedding_runtime.engine.observer import Observer, SilentObserver
from embedding_runtime.engine.policy import BatchPolicy, Entry, Lane, Limits, Run, Ticket
from embedding_runtime.engine.runner import Outcome, run_isolated

_HEARTBEAT_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one request, in input order, and what it took. Times are seconds."""

    vectors: Matrix
    queue_seconds: float
    inference_seconds: float
    batch_tokens: int


@dataclass(slots=True, eq=False)
class _Request:
    items: Sequence[Item]
    ticket: Ticket
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Embedded]
    vectors: Matrix | None = None
    done: int = 0
    started: float = 0.0
    inference_seconds: float = 0.0
    batch_tokens: int = 0
    error: Exception | None = None


class Engine:
    """Batches the items of concurrent requests and runs them on the one thread that owns the model.

    `stuck_after` is how many seconds one batch may take before the engine calls itself dead.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        stuck_after: float = 300.0,
    ) -> None:
        self._model = model
        self._policy = BatchPolicy(limits)
        self._load = LoadMeter()
        self._observer = observer or SilentObserver()
        self._clock = clock
        self._stuck_after = stuck_after
        self._changed = threading.Condition()
        self._requests: dict[Ticket, _Request] = {}
        self._stopping = False
        self._failure: str | None = None
        self._heartbeat = clock()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def model(self) -> Model:
        return self._model

    @property
    def failure(self) -> str | None:
        """Why the engine will never answer again; None while it may."""
        return self._failure

    def start(self) -> None:
        self._heartbeat = self._clock()
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs and has shown so lately."""
        if self._failure or not self._thread.is_alive():
            return False
        return self._clock() - self._heartbeat < self._stuck_after

    def announce(self) -> None:
        """A request is being prepared: waiting a moment for it may be worthwhile."""
        with self._changed:
            self._policy.announce()

    def withdraw(self) -> None:
        """The announced request was submitted, or never will be."""
        with self._changed:
            self._policy.withdraw()
            self._changed.notify()

    async def submit(self, items: Sequence[Item], lane: Lane, timeout: float, *, announced: bool = False) -> Embedded:
        """Embed the items of one request; with `announced`, in place of an announcement.

        Cancelling the awaiting task takes what still queues out of the queue. Raises QueueFullError, QueueTimeoutError
        after `timeout` seconds, ItemFailedError and StoppedError.
        """
        request = self._admit(items, lane, announced)
        try:
            async with asyncio.timeout(timeout):
                return await request.future
        except TimeoutError:
            self._observer.rejected("timeout")
            raise QueueTimeoutError(timeout, self.drain_seconds()) from None
        finally:
            self._forget(request)

    def queued_tokens(self, lane: Lane) -> int:
        with self._changed:
            return self._policy.queued_tokens(lane)

    def queued_items(self, lane: Lane) -> int:
        with self._changed:
            return self._policy.queued_items(lane)

    def oldest_seconds(self, lane: Lane) -> float:
        """Age of the oldest request of a lane that still queues; 0 when none does."""
        with self._changed:
            arrived = self._policy.oldest_arrival(lane)
        return 0.0 if arrived is None else max(0.0, self._clock() - arrived)

    def utilization(self) -> float:
        """Demand divided by capacity (see LoadMeter)."""
        with self._changed:
            return self._load.utilization(self._all_queued_tokens(), self._clock())

    def capacity(self) -> float:
        """Measured tokens per second."""
        with self._changed:
            return self._load.capacity

    def drain_seconds(self) -> float:
        """How long the queue needs at the measured capacity."""
        with self._changed:
            return self._all_queued_tokens() / self._load.capacity if self._load.capacity else 1.0

    def drain(self) -> None:
        """From now on run what is queued without waiting for company."""
        with self._changed:
            self._policy.draining = True
            self._changed.notify()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after the batch that runs; requests still queued fail with StoppedError."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def refuse_all(self, reason: str) -> None:
        """Fail every request in progress with StoppedError now and admit no more; the batch that runs ends unheard."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._fail_all(StoppedError(reason))

    def _all_queued_tokens(self) -> int:
        return sum(self._policy.queued_tokens(lane) for lane in Lane)

    def _admit(self, items: Sequence[Item], lane: Lane, announced: bool) -> _Request:
        loop = asyncio.get_running_loop()
        with self._changed:
            if announced:
                self._policy.withdraw()
            if self._stopping or self._failure:
                raise StoppedError(self._failure or "the engine is stopped")
            ticket = self._policy.offer(lane, tuple(item.tokens for item in items), self._clock())
            if ticket is None:
                capacity = self._load.capacity
                self._observer.rejected("queue_full")
                raise QueueFullError(self._all_queued_tokens() / capacity if capacity else 1.0)
            request = _Request(items, ticket, loop, loop.create_future())
            self._requests[ticket] = request
            self._changed.notify()
        return request

    def _forget(self, request: _Request) -> None:
        with self._changed:
            self._requests.pop(request.ticket, None)
            forgotten = self._policy.cancel(request.ticket)
        if forgotten:
            self._observer.cancelled(forgotten)

    # What follows runs on the engine's thread.

    def _work(self) -> None:
        try:
            while (run := self._next_run()) is not None:
                self._execute(run)
            self._fail_all(StoppedError("the engine is stopped"))
        except BaseException as error:
            _log.critical("the engine stopped: %s", error, exc_info=error)
            self._failure = f"{type(error).__name__}: {error}"
            self._fail_all(StoppedError("the device or the engine failed; this replica is restarting"))

    def _next_run(self) -> Run | None:
        with self._changed:
            while True:
                now = self._heartbeat = self._clock()
                if self._stopping:
                    return None
                decision = self._policy.decide(now)
                if isinstance(decision, Run):
                    self._load.started(now)
                    return decision
                pause = _HEARTBEAT_SECONDS if decision.until is None else decision.until - now
                self._changed.wait(min(max(pause, 0.0), _HEARTBEAT_SECONDS))

    def _execute(self, run: Run) -> None:
        started = self._clock()
        requests = [self._requests.get(entry.ticket) for entry in run.entries]
        live = [(entry, request) for entry, request in zip(run.entries, requests, strict=True) if request is not None]
        arrived = min(entry.ticket.arrived for entry in run.entries)
        self._observer.batch_started(run, started - arrived)
        outcomes = run_isolated(
            self._model.embed, [request.items[entry.index].payload for entry, request in live], self._halve_budget
        )
        ended = self._clock()
        completed: list[_Request] = []
        for outcome in outcomes:
            self._deliver(outcome, live, completed)
        for request in {id(request): request for _, request in live}.values():
            request.started = request.started or started
            request.inference_seconds += ended - started
            request.batch_tokens = max(request.batch_tokens, run.tokens)
        with self._changed:
            self._load.ended(run.tokens, ended)
            self._policy.answered(len(completed), ended)
        self._observer.batch_ended(run, ended - started)
        self._answer(completed)

    def _deliver(self, outcome: Outcome, live: Sequence[tuple[Entry, _Request]], completed: list[_Request]) -> None:
        """Copy an outcome's vectors into their requests, collecting those that are complete."""
        for row, position in enumerate(outcome.positions):
            entry, request = live[position]
            index = entry.index
            if outcome.vectors is None:
                request.error = request.error or ItemFailedError(index, outcome.error or RuntimeError())
            else:
                if request.vectors is None:
                    request.vectors = np.empty((len(request.items), outcome.vectors.shape[1]), np.float32)
                request.vectors[index] = outcome.vectors[row]
            request.done += 1
            if request.done == len(request.items) or (request.error and request not in completed):
                completed.append(request)

    def _answer(self, completed: Sequence[_Request]) -> None:
        """Hand answers to their event loops: one call per loop and batch."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
        for request in completed:
            by_loop.setdefault(request.loop, []).append(request)
        for loop, requests in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, requests)

    def _halve_budget(self) -> None:
        with self._changed:
            limits = self._policy.limits
            tokens = max(1, limits.max_batch_tokens // 2)
            self._policy.limits = replace(limits, max_batch_tokens=tokens)
        _log.warning("out of device memory: the token budget of a batch is now %d", tokens)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            requests = list(self._requests.values())
        for request in requests:
            request.error = error
        self._answer(requests)


def _resolve(requests: Sequence[_Request]) -> None:
    """Set the futures of completed requests; runs on their event loop."""
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        elif request.vectors is not None:
            request.future.set_result(
                Embedded(
                    request.vectors,
                    request.started - request.ticket.arrived,
                    request.inference_seconds,
                    request.batch_tokens,
                )
            )
