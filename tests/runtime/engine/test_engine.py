"""The engine with a model that only counts: sharing, isolation, cancellation, limits, stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import ItemFailedError, QueueFullError, QueueTimeoutError, StoppedError
from embedding_runtime.engine.model import (
    DeviceLostError,
    Input,
    InputType,
    Item,
    Matrix,
    ModelIdentity,
    OutOfMemoryError,
    Truncation,
    no_checkpoint,
)
from embedding_runtime.engine.policy import Limits
from embedding_runtime.engine.request import Embedded
from embedding_runtime.engine.work import Lane

from tests.runtime.helpers import wait_until

LIMITS = Limits(max_batch_tokens=64, max_batch_items=64, max_queued_tokens=1000, max_wait=0.05)


class NumberModel:
    """Embeds a number as (number, batch size). Can be held, and fails on what the test names."""

    identity = ModelIdentity("m", "m", "", "sha256:0", 2, (2,), 10, "Mean", False, ("text",), "float32")
    default_batch_tokens = 64

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[object]] = []
        self.poison: object = None
        self.fits = 1000
        self.lost = False

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        return [Item(1, float(text)) for text in inputs if isinstance(text, str)]

    def embed(self, payloads: Sequence[object]) -> Matrix:
        self.batches.append(list(payloads))
        assert self.gate.wait(30)
        if self.lost:
            raise DeviceLostError("gone")
        if len(payloads) > self.fits:
            raise OutOfMemoryError("too much")
        if self.poison in payloads:
            raise ValueError("poison")
        return np.array([[payload, len(payloads)] for payload in payloads], np.float32)


def items(*numbers: float) -> list[Item]:
    return [Item(1, number) for number in numbers]


class Running:
    """An engine that is stopped at the end."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.model = NumberModel()
        self.engine = Engine(self.model, limits)

    def __enter__(self) -> Running:
        self.engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.model.gate.set()
        self.engine.stop()

    async def submit(self, *numbers: float, lane: Lane = Lane.BULK, timeout: float = 30) -> Embedded:
        return await self.engine.submit(items(*numbers), lane, timeout)

    async def occupy(self) -> asyncio.Task[Embedded]:
        """Hold the engine in a batch until the gate opens."""
        self.model.gate.clear()
        before = len(self.model.batches)
        task = asyncio.create_task(self.submit(0))
        await asyncio.to_thread(wait_until, lambda: len(self.model.batches) > before)
        return task


def test_requests_that_arrive_while_a_batch_runs_share_the_next() -> None:
    async def scenario() -> None:
        with Running() as it:
            first = await it.occupy()
            others = [asyncio.create_task(it.submit(n, n + 0.5)) for n in range(1, 6)]
            await asyncio.sleep(0)
            it.model.gate.set()
            await first
            answers = await asyncio.gather(*others)
            assert len(it.model.batches) == 2
            for n, answer in enumerate(answers, 1):
                assert answer.vectors.tolist() == [[n, 10], [n + 0.5, 10]]
                assert answer.batch_tokens == 10

    asyncio.run(scenario())


def test_a_request_larger_than_a_batch_is_answered_in_order() -> None:
    async def scenario() -> None:
        with Running() as it:
            answer = await it.submit(*range(200))
            assert answer.vectors[:, 0].tolist() == list(range(200))
            assert len(it.model.batches) == 4

    asyncio.run(scenario())


def test_only_the_poisoned_request_fails() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.poison = 3
            first = await it.occupy()
            tasks = [asyncio.create_task(it.submit(n)) for n in range(1, 8)]
            await asyncio.sleep(0)
            it.model.gate.set()
            results = await asyncio.gather(first, *tasks, return_exceptions=True)
            assert [isinstance(result, ItemFailedError) for result in results] == [n == 3 for n in range(8)]
            assert it.engine.is_alive()

    asyncio.run(scenario())


def test_out_of_memory_halves_the_batch_and_loses_nothing() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.fits = 20
            answer = await it.submit(*range(64))
            assert answer.vectors[:, 0].tolist() == list(range(64))
            it.model.batches.clear()
            await it.submit(*range(32))
            assert max(map(len, it.model.batches)) <= 32

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def scenario() -> None:
        with Running() as it:
            first = await it.occupy()
            doomed = asyncio.create_task(it.submit(666))
            await asyncio.sleep(0)
            assert it.engine.queued_tokens(Lane.BULK) == 1
            doomed.cancel()
            await asyncio.gather(doomed, return_exceptions=True)
            assert it.engine.queued_tokens(Lane.BULK) == 0
            it.model.gate.set()
            await first
            assert it.model.batches == [[0]]

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_a_slow_one_times_out() -> None:
    async def scenario() -> None:
        with Running(Limits(4, 4, 8, 0.0)) as it:
            first = await it.occupy()
            waiting = asyncio.create_task(it.submit(*range(8), timeout=0.2))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError) as refused:
                await it.submit(1)
            assert refused.value.retry_after > 0
            with pytest.raises(QueueTimeoutError):
                await waiting
            assert it.engine.queued_tokens(Lane.BULK) == 0
            it.model.gate.set()
            await first

    asyncio.run(scenario())


def test_a_lost_device_fails_everything_and_the_heartbeat() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.lost = True
            with pytest.raises(StoppedError):
                await it.submit(1, 2, 3)
            wait_until(lambda: not it.engine.is_alive(), 5, "death")
            assert it.engine.failure
            with pytest.raises(StoppedError):
                await it.submit(1)

    asyncio.run(scenario())


def test_stopping_fails_what_still_queues() -> None:
    async def scenario() -> None:
        with Running() as it:
            await it.occupy()
            queued = asyncio.create_task(it.submit(1))
            await asyncio.sleep(0)
            threading.Timer(0.05, it.model.gate.set).start()
            await asyncio.to_thread(it.engine.stop)
            with pytest.raises(StoppedError):
                await queued

    asyncio.run(scenario())


def test_a_batch_that_nobody_waits_for_any_more_runs_nothing() -> None:
    from embedding_runtime.engine.runner import run_isolated

    def never(payloads: object) -> object:
        raise AssertionError("nothing is there to embed")

    assert run_isolated(never, [], lambda: None) == []  # type: ignore[arg-type]
