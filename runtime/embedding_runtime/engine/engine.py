"""The engine: requests come from an event loop, workers run the model, answers go back once per batch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from embedding_runtime.engine.errors import DeadlineError, QueueFullError, QueueTimeoutError, StoppedError
from embedding_runtime.engine.health import Health
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import Interruptible, Item, Model, Parallel
from embedding_runtime.engine.observer import Observer, SilentObserver
from embedding_runtime.engine.policy import BatchPolicy, Cause, Limits, Refusal
from embedding_runtime.engine.request import Embedded, Pending
from embedding_runtime.engine.shared import Shared
from embedding_runtime.engine.work import Lane
from embedding_runtime.engine.worker import Worker, fail_all


class Engine:
    """Batches the items of concurrent requests and runs them on the threads that own the model: its workers.

    `stuck_after` is how many seconds one step of a batch may take before the engine calls itself dead. A model that can
    prove that it computes must do so whenever `health` asks for it.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        stuck_after: float = 300.0,
        health: Health | None = None,
        load: LoadMeter | None = None,
    ) -> None:
        workers = model.workers if isinstance(model, Parallel) else 1
        self._shared = Shared(
            model,
            BatchPolicy(limits, workers=workers),
            load or LoadMeter(),
            health or Health(clock()),
            observer or SilentObserver(),
            clock,
            workers,
        )
        self._changed = self._shared.changed
        self._policy = self._shared.policy
        self._load = self._shared.load
        self._observer = self._shared.observer
        self._clock = clock
        self._stuck_after = stuck_after
        self._workers = [Worker(self._shared, number) for number in range(workers)]
        self._by_thread: dict[int | None, Worker] = {}

    @property
    def model(self) -> Model:
        return self._shared.model

    @property
    def failure(self) -> str | None:
        """Why the engine will never answer again; None while it may."""
        return self._shared.failure

    @property
    def trouble(self) -> str | None:
        """Why the engine should get no new traffic for now; None while it may."""
        return self._shared.health.trouble

    def start(self) -> None:
        if isinstance(self.model, Interruptible):
            self.model.between_steps(self._between_steps)
        for worker in self._workers:
            worker.start()
            self._by_thread[worker.thread.ident] = worker

    def is_alive(self) -> bool:
        """Whether all workers run and have shown so lately."""
        return not self.failure and all(worker.is_alive(self._stuck_after) for worker in self._workers)

    def announce(self, lane: Lane) -> None:
        """A request is being prepared: waiting a moment for it may be worthwhile."""
        with self._changed:
            self._policy.announce(lane)

    def withdraw(self, lane: Lane) -> None:
        """The announced request was submitted, or never will be."""
        with self._changed:
            self._policy.withdraw(lane)
            self._changed.notify()

    async def submit(
        self, items: Sequence[Item], lane: Lane, timeout: float, *, announced: Lane | None = None
    ) -> Embedded:
        """Embed the items, at least one, of one request; `announced` is the lane it was announced in, if it was.

        Cancelling the awaiting task takes what still queues out of the queue. Raises QueueFullError, DeadlineError,
        QueueTimeoutError after `timeout` seconds, ItemFailedError and StoppedError.
        """
        request = self._admit(items, lane, timeout, announced)
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
        """Age of the oldest item of a lane that still queues; 0 when none does."""
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

    def busy_ratio(self) -> float:
        """The part of the last seconds in which a batch ran."""
        with self._changed:
            return self._load.busy_ratio(self._clock())

    def busy_seconds(self) -> float:
        """How long batches have run since the start."""
        with self._changed:
            return self._load.busy_seconds

    def batch_token_budget(self) -> int:
        """How many tokens a batch may have now: the configured number, or less after the device's memory ran out."""
        with self._changed:
            return self._policy.memory.tokens

    def drain_seconds(self) -> float:
        """How long the queue needs at the measured capacity."""
        with self._changed:
            return self._all_queued_tokens() / self._load.capacity if self._load.capacity else 1.0

    def drain(self) -> None:
        """From now on run what is queued without waiting for company."""
        with self._changed:
            self._policy.draining = True
            self._changed.notify_all()

    def stop(self, timeout: float = 5.0) -> None:
        """End the workers after the batches that run; requests still queued fail with StoppedError."""
        self._end_workers()
        until = time.monotonic() + timeout
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        # What they ran was answered; what remains will not be taken up.
        fail_all(self._shared, StoppedError("the engine is stopped"))

    def refuse_all(self, reason: str) -> None:
        """Fail every request in progress with StoppedError now and admit no more; what runs ends unheard."""
        self._end_workers()
        fail_all(self._shared, StoppedError(reason))

    def _end_workers(self) -> None:
        with self._changed:
            self._shared.stopping = True
            self._changed.notify_all()

    def _between_steps(self) -> None:
        """Called by the model on a worker's thread; on others nothing can be interrupted."""
        worker = self._by_thread.get(threading.get_ident())
        if worker is not None:
            worker.between_steps()

    def _all_queued_tokens(self) -> int:
        return sum(self._policy.queued_tokens(lane) for lane in Lane)

    def _admit(self, items: Sequence[Item], lane: Lane, timeout: float, announced: Lane | None) -> Pending:
        if not items:
            raise ValueError("a request has at least one item")
        loop = asyncio.get_running_loop()
        with self._changed:
            if announced is not None:
                self._policy.withdraw(announced)
            if self._shared.is_over:
                raise StoppedError(self.failure or "the engine is stopped")
            now = self._clock()
            ticket = self._policy.offer(lane, items, now, speed=self._load.proven_capacity(now), timeout=timeout)
            if isinstance(ticket, Refusal):
                raise self._refused(ticket, timeout)
            self._load.arrived(ticket.new_tokens, now)
            request = Pending(ticket, loop, loop.create_future())
            self._shared.requests[ticket] = request
            self._changed.notify()
        if ticket.shared_items:
            self._observer.shared(ticket.shared_items)
        return request

    def _refused(self, refusal: Refusal, timeout: float) -> QueueFullError | DeadlineError:
        self._observer.rejected(refusal.cause.value)
        capacity = self._load.capacity
        retry_after = refusal.tokens / capacity if capacity else 1.0
        return DeadlineError(timeout, retry_after) if refusal.cause is Cause.DEADLINE else QueueFullError(retry_after)

    def _forget(self, request: Pending) -> None:
        with self._changed:
            self._shared.requests.pop(request.ticket, None)
            forgotten = self._policy.cancel(request.ticket)
        if forgotten:
            self._observer.cancelled(forgotten)
