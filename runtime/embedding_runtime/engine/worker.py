"""A worker of the engine: a thread that takes batches from the policy, runs the model, and sends answers home."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from embedding_runtime.engine.errors import StoppedError
from embedding_runtime.engine.load import Running
from embedding_runtime.engine.model import DeviceLostError, OutOfMemoryError, Parallel, Provable
from embedding_runtime.engine.policy import Run
from embedding_runtime.engine.request import Pending, answer
from embedding_runtime.engine.runner import Outcome, run_isolated
from embedding_runtime.engine.shared import Shared
from embedding_runtime.engine.work import Work

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


@dataclass(frozen=True, slots=True)
class _Started:
    """A batch with the parts of the device that it has."""

    run: Run
    parts: int
    running: Running


class Worker:
    """One thread that embeds, with what it shares with the others."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._steps: _Steps | None = None
        self._parts = 1
        self.heartbeat = shared.clock()
        self._thread = threading.Thread(target=self._work, name=f"engine-{number}", daemon=True)

    def start(self) -> None:
        self.heartbeat = self._shared.clock()
        self._thread.start()

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    def is_alive(self, stuck_after: float) -> bool:
        """Whether the thread runs and has shown so within the last seconds."""
        return self._thread.is_alive() and self._shared.clock() - self.heartbeat < stuck_after

    def join(self, timeout: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    def between_steps(self) -> None:
        """Called by the model in the middle of a batch: run queries that came meanwhile, if it is their turn."""
        shared, steps = self._shared, self._steps
        now = self.heartbeat = shared.clock()
        if steps is None:
            return
        steps.end_step(now)
        if not shared.policy.queries_wait:
            return
        with shared.changed:
            run = shared.policy.interrupt(steps.run)
        if run is None:
            return
        self._steps = None
        try:
            self._use(run)
            self._interrupt(run)
            self._use(steps.run)
        except DeviceLostError:
            raise
        except Exception as error:
            # Not the fault of an item of the batch that was interrupted, whose isolation would swallow it.
            raise DeviceLostError(f"a defect of the engine: {error}") from error
        finally:
            self._steps = steps
        steps.step_began = shared.clock()
        steps.interrupted_seconds += steps.step_began - now
        steps.interrupting_tokens += run.tokens

    def _work(self) -> None:
        shared = self._shared
        try:
            while not shared.is_over:
                if self._is_test_due():
                    self._test()
                elif (started := self._next_batch()) is not None:
                    self._execute(started)
        except BaseException as error:
            _log.critical("the engine stopped: %s", error, exc_info=error)
            with shared.changed:
                shared.failure = shared.failure or f"{type(error).__name__}: {error}"
                shared.changed.notify_all()
            fail_all(shared, StoppedError("the device or the engine failed; this replica is restarting"))

    def _is_test_due(self) -> bool:
        """Whether this worker is to let the model prove itself now; the others go on meanwhile."""
        shared = self._shared
        with shared.changed:
            due = not shared.testing and shared.clock() >= shared.health.next_test()
            shared.testing = shared.testing or due
            if due and not shared.policy.is_empty:
                # This worker may be the only one that was told of what queues.
                shared.changed.notify()
        return due

    def _test(self) -> None:
        """Let the model prove itself. Raises DeviceLostError when it failed to several times."""
        shared = self._shared
        self.heartbeat = shared.clock()
        failed: Exception | None = None
        try:
            if isinstance(shared.model, Provable):
                shared.model.prove()
        except DeviceLostError:
            raise
        except Exception as error:
            failed = error
        with shared.changed:
            shared.testing = False
            before = shared.health.trouble
            if failed is None:
                shared.health.passed(shared.clock())
            else:
                shared.health.failed(failed, shared.clock())
        if failed is not None:
            _log.error("%s", shared.health.trouble, exc_info=failed)
            if shared.health.is_hopeless:
                raise DeviceLostError(shared.health.trouble) from failed
        elif before is not None:
            _log.warning("the self-test passes again")

    def _next_batch(self) -> _Started | None:
        """What to run now; None after a pause without anything to run."""
        shared = self._shared
        with shared.changed:
            now = self.heartbeat = shared.clock()
            if shared.is_over:
                return None
            decision = shared.policy.decide(now)
            if isinstance(decision, Run):
                return self._take(decision, now)
            pause = _HEARTBEAT_SECONDS if decision.until is None else decision.until - now
            shared.changed.wait(min(max(pause, 0.0), _HEARTBEAT_SECONDS))
        return None

    def _take(self, run: Run, now: float) -> _Started:
        """Take one part of the device for the batch; when nothing is left for the idle workers, theirs too."""
        shared = self._shared
        idle = max(1, shared.workers - shared.parts_in_use)
        if not shared.policy.is_empty:
            shared.changed.notify()
            idle = 1
        self._parts = idle
        parts = self._use(run)
        shared.parts_in_use += parts
        return _Started(run, parts, shared.load.started(now, parts / shared.workers))

    def _use(self, run: Run) -> int:
        """Let this thread compute the run with at most the parts of the device it has; how many it uses."""
        model = self._shared.model
        return model.take(self._parts, run.tokens) if isinstance(model, Parallel) else self._parts

    def _execute(self, started: _Started) -> None:
        shared, run = self._shared, started.run
        began = shared.clock()
        steps = self._steps = _Steps(run, began)
        shared.observer.batch_started(run)
        try:
            outcomes = self._embed(run)
        finally:
            self._steps = None
        ended = shared.clock()
        steps.end_step(ended)
        seconds = ended - began - steps.interrupted_seconds
        with shared.changed:
            shared.parts_in_use -= started.parts
            # Batches much smaller than the budget say little about how fast large ones are; those that were cut to a
            # quarter of it (the least) are filled with whole items only.
            full = 8 * run.tokens >= shared.policy.memory.tokens
            shared.load.ended(started.running, run.tokens + steps.interrupting_tokens, ended, full=full)
            shared.policy.pace.ran(frozenset(run.tokens_by_lane), run.tokens, seconds, steps.longest)
            shared.policy.memory.fitted(run.tokens, ended)
        self._complete(run, outcomes, began, seconds)

    def _interrupt(self, run: Run) -> None:
        shared = self._shared
        began = shared.clock()
        shared.observer.batch_started(run)
        outcomes = self._embed(run)
        self._complete(run, outcomes, began, shared.clock() - began)

    def _embed(self, run: Run) -> list[tuple[list[Work], Outcome]]:
        """Embed the work that somebody still waits for."""
        works = [work for work in run.works if work.interest]
        outcomes = run_isolated(self._shared.model.embed, [work.item for work in works], self._shrink)
        return [([works[position] for position in outcome.positions], outcome) for outcome in outcomes]

    def _complete(
        self, run: Run, outcomes: Sequence[tuple[Sequence[Work], Outcome]], began: float, seconds: float
    ) -> None:
        """Nobody can join the work any more: put vectors into their requests and answer those that are complete."""
        shared = self._shared
        touched: dict[int, Pending] = {}
        suspicious = False
        # Batches that run side by side may hold inputs of the same request.
        with shared.changed:
            done = shared.policy.settle(run, shared.clock())
            completed = {
                id(request): request for ticket in done if (request := shared.requests.get(ticket)) is not None
            }
            for works, outcome in outcomes:
                suspicious |= outcome.error is not None and not isinstance(outcome.error, OutOfMemoryError)
                for row, work in enumerate(works):
                    for ticket, index in work.readers:
                        request = shared.requests.get(ticket)
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
            shared.health.ran(shared.clock(), suspicious=suspicious)
        shared.observer.batch_ended(run, seconds)
        shared.observer.waited([request.queue_seconds for request in completed.values()])
        answer(completed.values())

    def _shrink(self, tokens: int) -> None:
        with self._shared.changed:
            memory = self._shared.policy.memory
            memory.exhausted(tokens, self._shared.clock())
            budget = memory.tokens
        _log.warning("out of device memory with %d tokens: the token budget of a batch is now %d", tokens, budget)


def fail_all(shared: Shared, error: Exception) -> None:
    """End every request in progress: with its answer where that is complete, else with this error."""
    with shared.changed:
        requests = list(shared.requests.values())
        for request in requests:
            if request.ticket.unsettled or request.vectors is None:
                request.error = request.error or error
    answer(requests)
