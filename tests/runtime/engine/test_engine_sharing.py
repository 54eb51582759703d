"""Identical inputs are computed once, queries interrupt bulk, and hopeless requests are refused at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import DeadlineError, ItemFailedError
from embedding_runtime.engine.model import Item, Matrix
from embedding_runtime.engine.policy import Limits, Reason, Run
from embedding_runtime.engine.request import Embedded
from embedding_runtime.engine.work import Lane

from tests.runtime.engine.test_engine import LIMITS, NumberModel, Running, items
from tests.runtime.helpers import wait_until


def keyed(*numbers: float) -> list[Item]:
    return [Item(1, number, key=number) for number in numbers]


def test_identical_inputs_of_one_request_are_computed_once() -> None:
    async def scenario() -> None:
        with Running() as it:
            answer = await it.engine.submit(keyed(1, 2, 1, 1), Lane.BULK, 30)
            assert answer.vectors[:, 0].tolist() == [1, 2, 1, 1]
            assert sorted(map(float, it.model.batches[0])) == [1, 2]  # type: ignore[arg-type]

    asyncio.run(scenario())


def test_an_input_joins_an_identical_one_that_runs_already() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            first = asyncio.create_task(it.engine.submit(keyed(7), Lane.BULK, 30))
            await asyncio.to_thread(wait_until, lambda: len(it.model.batches) == 1)
            second = asyncio.create_task(it.engine.submit(keyed(7, 8), Lane.INTERACTIVE, 30))
            await asyncio.sleep(0)
            first.cancel()  # the one that came first does not matter
            await asyncio.gather(first, return_exceptions=True)
            it.model.gate.set()
            answer = await second
            assert answer.vectors[:, 0].tolist() == [7, 8]
            assert answer.queue_seconds >= 0
            assert it.model.batches == [[7], [8]]

    asyncio.run(scenario())


def test_who_shares_a_failing_input_is_told_so_by_the_index_of_their_own() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.poison = 3
            first = await it.occupy()
            tasks = [asyncio.create_task(it.engine.submit(keyed(*n), Lane.BULK, 30)) for n in ((3,), (1, 3), (1, 2))]
            await asyncio.sleep(0)
            it.model.gate.set()
            failed, other, fine = await asyncio.gather(*tasks, return_exceptions=True)
            await first
            assert isinstance(failed, ItemFailedError)
            assert isinstance(other, ItemFailedError)
            assert (failed.index, other.index) == (0, 1)
            assert isinstance(fine, Embedded)
            assert fine.vectors[:, 0].tolist() == [1, 2]

    asyncio.run(scenario())


def test_many_clients_with_few_texts_all_get_their_answer_while_some_hang_up() -> None:
    async def scenario() -> None:
        with Running(Limits(16, 8, 10_000, 0.001)) as it:

            async def client(number: int) -> None:
                for step in range(20):
                    wanted = [(number * step + n) % 9 for n in range(number % 5 + 1)]
                    lane = Lane.BULK if number % 2 else Lane.INTERACTIVE
                    task = asyncio.create_task(it.engine.submit(keyed(*wanted), lane, 30))
                    if (number + step) % 7 == 0:
                        await asyncio.sleep(0)
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                    else:
                        assert (await task).vectors[:, 0].tolist() == wanted

            await asyncio.gather(*(client(number) for number in range(30)))
            assert sum(it.engine.queued_items(lane) for lane in Lane) == 0
            assert len(it.engine._policy._in_flight) == 0

    asyncio.run(scenario())


class LayeredModel(NumberModel):
    """Has steps between which it can be interrupted, and stops at each of them until the test allows it to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = threading.Semaphore(0)
        self.at_step = 0
        self._call: Callable[[], None] = lambda: None

    def between_steps(self, call: Callable[[], None]) -> None:
        self._call = call

    def embed(self, payloads: Sequence[object]) -> Matrix:
        self.batches.append(list(payloads))
        if len(payloads) > 1:
            for _ in range(3):
                self.at_step += 1
                assert self.steps.acquire(timeout=30)
                self._call()
        return np.array([[payload, len(payloads)] for payload in payloads], np.float32)


class Reasons:
    """An observer that keeps why batches ran and what they took."""

    def __init__(self) -> None:
        self.started: list[Reason] = []
        self.seconds: list[float] = []

    def batch_started(self, run: Run) -> None:
        self.started.append(run.reason)

    def batch_ended(self, run: Run, seconds: float) -> None:
        self.seconds.append(seconds)

    def waited(self, queue_seconds: Sequence[float]) -> None:
        pass

    def shared(self, items: int) -> None:
        pass

    def rejected(self, reason: str) -> None:
        pass

    def cancelled(self, items: int) -> None:
        pass


def test_a_query_is_answered_in_the_middle_of_a_bulk_batch() -> None:
    async def scenario() -> None:
        model, observer = LayeredModel(), Reasons()
        engine = Engine(model, LIMITS, observer=observer)
        engine.start()
        try:
            bulk = asyncio.create_task(engine.submit(items(1, 2, 3), Lane.BULK, 30))
            await asyncio.to_thread(wait_until, lambda: model.at_step == 1)
            query = asyncio.create_task(engine.submit(items(9), Lane.INTERACTIVE, 30))
            await asyncio.sleep(0)
            model.steps.release()
            answer = await query
            assert not bulk.done()
            assert answer.vectors.tolist() == [[9, 1]]
            model.steps.release(2)
            assert (await bulk).vectors[:, 0].tolist() == [1, 2, 3]
            assert model.batches == [[1, 2, 3], [9]]
            assert Reason.INTERRUPT in observer.started
        finally:
            model.steps.release(10)
            engine.stop()

    asyncio.run(scenario())


def test_what_cannot_be_answered_in_time_is_refused_and_what_was_never_measured_is_not() -> None:
    class SlowModel(NumberModel):
        def embed(self, payloads: Sequence[object]) -> Matrix:
            # A thousand tokens per second.
            time.sleep(len(payloads) / 1000)
            return np.array([[payload, 0] for payload in payloads], np.float32)

    async def scenario() -> None:
        engine = Engine(SlowModel(), Limits(50, 50, 10**6, 0.0))
        engine.start()
        try:
            # Nothing is known about the speed yet: admitted, whatever it will take.
            assert (await engine.submit(items(*range(200)), Lane.BULK, 30)).vectors.shape == (200, 2)
            assert engine.capacity() == pytest.approx(1000, rel=0.5)
            began = time.monotonic()
            with pytest.raises(DeadlineError) as refused:
                await engine.submit(items(*range(5000)), Lane.BULK, 0.5)
            assert time.monotonic() - began < 0.4
            assert 1 < refused.value.retry_after < 20
            assert (await engine.submit(items(*range(20)), Lane.BULK, 5)).vectors.shape == (20, 2)
        finally:
            engine.stop()

    asyncio.run(scenario())


def test_two_thousand_texts_and_one_longer_than_the_budget() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.fits = 10_000
            wanted = [*items(*range(1024)), Item(1000, -1.0), *items(*range(1023))]
            answer = await it.engine.submit(wanted, Lane.BULK, 30)
            assert answer.vectors[:, 0].tolist() == [item.payload for item in wanted]
            assert [-1.0] in it.model.batches
            assert answer.batch_tokens == 1000

    asyncio.run(scenario())
