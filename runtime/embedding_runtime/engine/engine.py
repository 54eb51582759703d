"""The engine: requests come from an event loop, one thread runs the model, answers go back once per batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_runtime.engine.errors import DeadlineError, QueueFullError, QueueTimeoutError, StoppedError
from embedding_runtime.engine.health import Health
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import DeviceLostError, Interruptible, Item, Model, OutOfMemoryError, Provable
from embedding_runtime.engine.observer import Observer, SilentObserver
from embedding_runtime.engine.policy import BatchPolicy, Cause, Limits, Refusal, Run
from embedding_runtime.engine.request import Embedded, Pending, answer
from embedding_runtime.engine.runner import Outcome, run_isolated
from embedding_runtime.engine.work import Lane, Ticket, Work

_HEARTBEAT_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Steps:
    """The batch that runs: its longest time without a chance to interrupt it, and what interrupted it."""

    run: Run
    step_began: float
    longest: float = 0.0
    interrupted_seconds: float = 0.0
    interrupting_tokens: int = 0

    def end_step(self, now: float) -> None:
        self.longest = max(self.longest, now - self.step_began)
        self.step_began = now


class Engine:
    """Batches the items of concurrent requests and runs them on the one thread that owns the model.

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
        self._model = model
        self._policy = BatchPolicy(limits)
        self._load = load or LoadMeter()
        self._observer = observer or SilentObserver()
        self._clock = clock
        self._stuck_after = stuck_after
        self._health = health or Health(clock())
        self._changed = threading.Condition()
        self._requests: dict[Ticket, Pending] = {}
        self._stopping = False
        self._failure: str | None = None
        self._steps: _Steps | None = None
        self._heartbeat = clock()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def model(self) -> Model:
        return self._model

    @property
    def failure(self) -> str | None:
        """Why the engine will never answer again; None while it may."""
        return self._failure

    @property
    def trouble(self) -> str | None:
        """Why the engine should get no new traffic for now; None while it may."""
        return self._health.trouble

    def start(self) -> None:
        self._heartbeat = self._clock()
        if isinstance(self._model, Interruptible):
            self._model.between_steps(self._between_steps)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs and has shown so lately."""
        if self._failure or not self._thread.is_alive():
            return False
        return self._clock() - self._heartbeat < self._stuck_after

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

    def _admit(self, items: Sequence[Item], lane: Lane, timeout: float, announced: Lane | None) -> Pending:
        if not items:
            raise ValueError("a request has at least one item")
        loop = asyncio.get_running_loop()
        with self._changed:
            if announced is not None:
                self._policy.withdraw(announced)
            if self._stopping or self._failure:
                raise StoppedError(self._failure or "the engine is stopped")
            now = self._clock()
            ticket = self._policy.offer(lane, items, now, speed=self._load.proven_capacity(now), timeout=timeout)
            if isinstance(ticket, Refusal):
                raise self._refused(ticket, timeout)
            self._load.arrived(ticket.new_tokens, now)
            request = Pending(ticket, loop, loop.create_future())
            self._requests[ticket] = request
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
            self._requests.pop(request.ticket, None)
            forgotten = self._policy.cancel(request.ticket)
        if forgotten:
            self._observer.cancelled(forgotten)

    # What follows runs on the engine's thread.

    def _work(self) -> None:
        try:
            while not self._stopping:
                if self._clock() >= self._health.next_test():
                    self._test()
                elif (run := self._next_run()) is not None:
                    self._execute(run)
            self._fail_all(StoppedError("the engine is stopped"))
        except BaseException as error:
            _log.critical("the engine stopped: %s", error, exc_info=error)
            self._failure = f"{type(error).__name__}: {error}"
            self._fail_all(StoppedError("the device or the engine failed; this replica is restarting"))

    def _test(self) -> None:
        """Let the model prove itself. Raises DeviceLostError when it failed to several times."""
        self._heartbeat = self._clock()
        try:
            if isinstance(self._model, Provable):
                self._model.prove()
        except DeviceLostError:
            raise
        except Exception as error:
            self._health.failed(error, self._clock())
            _log.error("%s", self._health.trouble, exc_info=error)
            if self._health.is_hopeless:
                raise DeviceLostError(self._health.trouble) from error
        else:
            if self._health.trouble is not None:
                _log.warning("the self-test passes again")
            self._health.passed(self._clock())

    def _next_run(self) -> Run | None:
        """What to run now; None after a pause without anything to run."""
        with self._changed:
            now = self._heartbeat = self._clock()
            decision = self._policy.decide(now)
            if isinstance(decision, Run):
                self._load.started(now)
                return decision
            pause = _HEARTBEAT_SECONDS if decision.until is None else decision.until - now
            if not self._stopping:
                self._changed.wait(min(max(pause, 0.0), _HEARTBEAT_SECONDS))
        return None

    def _execute(self, run: Run) -> None:
        began = self._clock()
        steps = self._steps = _Steps(run, began)
        self._observer.batch_started(run)
        try:
            outcomes = self._embed(run)
        finally:
            self._steps = None
        ended = self._clock()
        steps.end_step(ended)
        seconds = ended - began - steps.interrupted_seconds
        with self._changed:
            # Batches much smaller than the budget say little about how fast large ones are.
            full = 4 * run.tokens >= self._policy.memory.tokens
            self._load.ended(run.tokens + steps.interrupting_tokens, ended, full=full)
            self._policy.pace.ran(frozenset(run.tokens_by_lane), run.tokens, seconds, steps.longest)
            self._policy.memory.fitted(run.tokens, ended)
        self._complete(run, outcomes, began, seconds)

    def _between_steps(self) -> None:
        """Called by the model in the middle of a batch: run queries that came meanwhile, if it is their turn."""
        now = self._heartbeat = self._clock()
        steps = self._steps
        if steps is None:
            return
        steps.end_step(now)
        if not self._policy.queries_wait:
            return
        with self._changed:
            run = self._policy.interrupt(steps.run)
        if run is None:
            return
        self._steps = None
        try:
            self._interrupt(run)
        except DeviceLostError:
            raise
        except Exception as error:
            # Not the fault of an item of the batch that was interrupted, whose isolation would swallow it.
            raise DeviceLostError(f"a defect of the engine: {error}") from error
        finally:
            self._steps = steps
        steps.step_began = self._clock()
        steps.interrupted_seconds += steps.step_began - now
        steps.interrupting_tokens += run.tokens

    def _interrupt(self, run: Run) -> None:
        began = self._clock()
        self._observer.batch_started(run)
        outcomes = self._embed(run)
        self._complete(run, outcomes, began, self._clock() - began)

    def _embed(self, run: Run) -> list[tuple[list[Work], Outcome]]:
        """Embed the work that somebody still waits for."""
        works = [work for work in run.works if work.interest]
        outcomes = run_isolated(self._model.embed, [work.item for work in works], self._shrink)
        return [([works[position] for position in outcome.positions], outcome) for outcome in outcomes]

    def _complete(
        self, run: Run, outcomes: Sequence[tuple[Sequence[Work], Outcome]], began: float, seconds: float
    ) -> None:
        """Nobody can join the work any more: put vectors into their requests and answer those that are complete."""
        with self._changed:
            done = self._policy.settle(run, self._clock())
        completed = {id(request): request for ticket in done if (request := self._requests.get(ticket)) is not None}
        touched: dict[int, Pending] = {}
        suspicious = False
        for works, outcome in outcomes:
            suspicious |= outcome.error is not None and not isinstance(outcome.error, OutOfMemoryError)
            for row, work in enumerate(works):
                for ticket, index in work.readers:
                    request = self._requests.get(ticket)
                    if request is None:
                        continue
                    touched[id(request)] = request
                    if outcome.vectors is not None:
                        request.put(index, outcome.vectors, row)
                    else:
                        request.fail(index, outcome.error or RuntimeError("no reason given"))
                        completed[id(request)] = request
        for request in touched.values():
            request.took_part(began, seconds, run.tokens)
        self._health.ran(self._clock(), suspicious=suspicious)
        self._observer.batch_ended(run, seconds)
        self._observer.waited([request.queue_seconds for request in completed.values()])
        answer(completed.values())

    def _shrink(self, tokens: int) -> None:
        with self._changed:
            self._policy.memory.exhausted(tokens, self._clock())
            budget = self._policy.memory.tokens
        _log.warning("out of device memory with %d tokens: the token budget of a batch is now %d", tokens, budget)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            requests = list(self._requests.values())
        for request in requests:
            request.error = error
        answer(requests)
