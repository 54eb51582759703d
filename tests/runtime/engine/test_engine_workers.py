"""Several workers on one model: batches side by side, one request in several of them, one end for all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.errors import StoppedError
from embedding_runtime.engine.health import Health
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import DeviceLostError, Matrix
from embedding_runtime.engine.policy import Limits
from embedding_runtime.engine.work import Lane

from tests.runtime.engine.test_engine import LIMITS, NumberModel, items
from tests.runtime.helpers import wait_until


class SideBySide(NumberModel):
    """Two batches at once; notes on which thread each ran, with which parts, and how many ran at the same time."""

    workers = 2

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._parts = threading.local()
        self.at_once = self.most_at_once = 0
        self.ran: list[tuple[int, int, list[object]]] = []
        self.losing: object = None
        self.proofs = 0
        self.seconds = 0.0

    def take(self, parts: int, tokens: int) -> int:
        self._parts.now = parts
        return parts

    def embed(self, payloads: Sequence[object]) -> Matrix:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.ran.append((threading.get_ident(), self._parts.now, list(payloads)))
        try:
            if self.losing in payloads:
                raise DeviceLostError("gone")
            time.sleep(self.seconds)
            return super().embed(payloads)
        finally:
            with self._lock:
                self.at_once -= 1

    def prove(self) -> None:
        self.proofs += 1


class Running:
    def __init__(self, limits: Limits = LIMITS, health: Health | None = None) -> None:
        self.model = SideBySide()
        self.engine = Engine(self.model, limits, health=health)

    def __enter__(self) -> Running:
        self.engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.model.gate.set()
        self.engine.stop()

    async def until(self, number: int) -> None:
        await asyncio.to_thread(wait_until, lambda: self.model.at_once == number)


def test_batches_run_side_by_side_and_the_second_has_its_part_only() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            first = asyncio.create_task(it.engine.submit(items(1), Lane.BULK, 30))
            await it.until(1)
            second = asyncio.create_task(it.engine.submit(items(2), Lane.BULK, 30))
            await it.until(2)
            it.model.gate.set()
            answers = await asyncio.gather(first, second)
            assert [answer.vectors.tolist() for answer in answers] == [[[1, 1]], [[2, 1]]]
            (one, parts, _), (other, rest, _) = it.model.ran
            assert one != other
            # Alone, a batch has all of the device; who comes later has what a worker has at least.
            assert (parts, rest) == (2, 1)

    asyncio.run(scenario())


def test_one_request_is_divided_among_the_workers_and_answered_in_order() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            task = asyncio.create_task(it.engine.submit(items(*range(60)), Lane.BULK, 30))
            await it.until(2)
            it.model.gate.set()
            answer = await task
            assert answer.vectors[:, 0].tolist() == list(range(60))
            # 60 tokens fit one batch of 64; half of them are left to the other worker.
            assert [len(payloads) for _, _, payloads in it.model.ran] == [30, 30]

    asyncio.run(scenario())


def test_many_clients_get_their_own_vectors() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.seconds = 0.001

            async def client(first: int) -> None:
                for number in range(first, first + 40):
                    answer = await it.engine.submit(items(number, number + 0.5), Lane.BULK, 30)
                    assert answer.vectors[:, 0].tolist() == [number, number + 0.5]

            await asyncio.gather(*(client(1000 * index) for index in range(24)))
            assert it.model.most_at_once == 2
            assert it.engine.queued_items(Lane.BULK) == 0

    asyncio.run(scenario())


def test_stopping_answers_what_runs_on_every_worker() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            tasks = [asyncio.create_task(it.engine.submit(items(1), Lane.BULK, 30))]
            await it.until(1)
            tasks.append(asyncio.create_task(it.engine.submit(items(2), Lane.BULK, 30)))
            await it.until(2)
            queued = asyncio.create_task(it.engine.submit(items(3), Lane.BULK, 30))
            await asyncio.sleep(0)
            stopping = asyncio.create_task(asyncio.to_thread(it.engine.stop))
            await asyncio.sleep(0.05)
            it.model.gate.set()
            assert [answer.vectors[0, 0] for answer in await asyncio.gather(*tasks)] == [1, 2]
            with pytest.raises(StoppedError):
                await queued
            await stopping

    asyncio.run(scenario())


def test_an_idle_worker_that_stops_fails_nothing_that_another_runs() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            task = asyncio.create_task(it.engine.submit(items(1), Lane.BULK, 30))
            await it.until(1)
            stopping = asyncio.create_task(asyncio.to_thread(it.engine.stop))
            await asyncio.to_thread(
                wait_until, lambda: sum(worker.thread.is_alive() for worker in it.engine._workers) == 1
            )
            assert not task.done()
            it.model.gate.set()
            assert (await task).vectors.tolist() == [[1, 1]]
            await stopping

    asyncio.run(scenario())


def test_a_lost_device_ends_all_workers() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.losing = 7
            it.model.gate.clear()
            held = asyncio.create_task(it.engine.submit(items(1), Lane.BULK, 30))
            await it.until(1)
            with pytest.raises(StoppedError):
                await it.engine.submit(items(7), Lane.BULK, 30)
            assert not it.engine.is_alive()
            assert "gone" in (it.engine.failure or "")
            with pytest.raises(StoppedError):
                await held
            it.model.gate.set()
            with pytest.raises(StoppedError):
                await it.engine.submit(items(2), Lane.BULK, 30)
            await asyncio.to_thread(
                wait_until, lambda: not any(worker.thread.is_alive() for worker in it.engine._workers)
            )

    asyncio.run(scenario())


def test_one_worker_proves_the_model_while_the_others_go_on() -> None:
    async def scenario() -> None:
        health = Health(time.monotonic() - 100, interval=60)
        with Running(health=health) as it:
            await asyncio.to_thread(wait_until, lambda: it.model.proofs == 1)
            answer = await it.engine.submit(items(1), Lane.BULK, 30)
            assert answer.vectors[0, 0] == 1
            assert it.model.proofs == 1

    asyncio.run(scenario())


def test_a_stuck_worker_is_noticed_though_the_other_works() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.gate.clear()
            held = asyncio.create_task(it.engine.submit(items(1), Lane.BULK, 30))
            await it.until(1)
            it.engine._stuck_after = 0.2
            await asyncio.to_thread(wait_until, lambda: not it.engine.is_alive())
            it.engine._stuck_after = 300.0
            assert it.engine.is_alive()
            it.model.gate.set()
            await held

    asyncio.run(scenario())


def run(meter: LoadMeter, share: float, tokens: int, begin: float, end: float, *, beside: bool) -> None:
    """A batch, with the rest of the device at work or idle."""
    other = meter.started(begin, 1 - share) if beside else None
    running = meter.started(begin, share)
    meter.ended(running, tokens, end, full=True)
    if other is not None:
        meter.ended(other, tokens, end, full=False)


def test_capacity_is_that_of_all_parts_and_known_once_all_of_them_worked() -> None:
    meter = LoadMeter(window=10)
    # Half of the device, the rest idle: it may be faster than it would be beside another, which proves nothing.
    run(meter, 0.5, 100, 0.0, 1.0, beside=False)
    assert meter.capacity == pytest.approx(200)
    assert meter.proven_capacity(1.0) is None
    assert meter.busy_ratio(10.0) == pytest.approx(0.05)
    meter = LoadMeter(window=10)
    for second in range(0, 20, 2):
        run(meter, 0.5, 100, second, second + 1.0, beside=True)
    assert meter.capacity == pytest.approx(200)
    assert meter.proven_capacity(20.0) == pytest.approx(200)
    assert meter.busy_ratio(20.0) == pytest.approx(0.5)
    assert meter.utilization(0, 20.0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_light_traffic_reads_the_same_on_any_number_of_workers(workers: int) -> None:
    """Small batches side by side for half of the time, on an engine that never ran a full one."""
    meter = LoadMeter(window=10)
    for step in range(100):
        now = step / 10
        batches = [meter.started(now, 1 / workers) for _ in range(workers)]
        for batch in batches:
            meter.arrived(16, now)
            meter.ended(batch, 16, now + 0.05, full=False)
    assert meter.utilization(0, 10.0) == pytest.approx(0.5, rel=0.1)
    assert meter.busy_ratio(10.0) == pytest.approx(0.5, rel=0.1)


def test_more_parts_than_there_are_are_shared() -> None:
    """A lone batch has all of the device when a second one begins on half of it, over and over."""
    meter = LoadMeter(window=10)
    for step in range(20):
        now = float(step)
        alone = meter.started(now, 1.0)
        late = meter.started(now + 0.25, 0.5)
        meter.ended(alone, 200, now + 0.75, full=True)  # 0.25 s alone, 0.5 s with two thirds: 0.583 of the device
        meter.ended(late, 100, now + 1.0, full=True)
    assert meter.busy_seconds == pytest.approx(20 * 0.875, rel=0.01)
    assert meter.busy_ratio(20.0) <= 1
    assert meter.capacity == pytest.approx(200 / 0.583, rel=0.1)


def test_a_due_self_test_does_not_keep_a_query_from_the_idle_worker() -> None:
    class Slow(SideBySide):
        def prove(self) -> None:
            super().prove()
            time.sleep(2.0)

    async def scenario() -> None:
        model = Slow()
        engine = Engine(model, LIMITS, health=Health(time.monotonic(), interval=0.3))
        engine.start()
        try:
            await asyncio.sleep(0.35)
            began = time.monotonic()
            await engine.submit(items(1), Lane.INTERACTIVE, 30)
            assert time.monotonic() - began < 0.5
        finally:
            engine.stop()

    asyncio.run(scenario())


def test_time_of_batches_side_by_side_is_not_counted_twice() -> None:
    async def scenario() -> None:
        with Running() as it:
            it.model.seconds = 0.2
            began = time.monotonic()
            answer = await it.engine.submit(items(*range(60)), Lane.BULK, 30)
            assert answer.inference_seconds <= time.monotonic() - began

    asyncio.run(scenario())


def test_a_stuck_worker_does_not_keep_what_queues_from_being_failed() -> None:
    async def scenario() -> None:
        with Running(Limits(1, 1, 1000, 0.0)) as it:
            it.model.gate.clear()
            running = [asyncio.create_task(it.engine.submit(items(n), Lane.BULK, 30)) for n in range(2)]
            await it.until(2)
            queued = asyncio.create_task(it.engine.submit(items(3), Lane.BULK, 30))
            await asyncio.sleep(0)
            await asyncio.to_thread(it.engine.stop, 0.2)
            with pytest.raises(StoppedError):
                await queued
            it.model.gate.set()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(scenario())


def test_utilization_of_two_workers_reads_the_load_of_both() -> None:
    """Each worker does 1 000 tokens per second; 1 000 arrive: half of what both could do."""

    class Working(SideBySide):
        def embed(self, payloads: Sequence[object]) -> Matrix:
            time.sleep(0.001 * len(payloads))
            return np.array([[payload, 0] for payload in payloads], np.float32)

        def take(self, parts: int, tokens: int) -> int:
            return 1

    async def measure(load: float) -> float:
        engine = Engine(Working(), Limits(40, 100, 10**6, 0.0), load=LoadMeter(2.0))
        engine.start()
        try:
            await engine.submit(items(*range(400)), Lane.BULK, 30)  # saturated for a while: capacity is known
            began = time.monotonic()
            await asyncio.sleep(0.3)
            began, interval, tasks = time.monotonic(), 20 / (2000 * load), []
            while (passed := time.monotonic() - began) < 3.5:
                while len(tasks) < passed / interval:
                    tasks.append(asyncio.create_task(engine.submit(items(*range(20)), Lane.BULK, 60)))
                await asyncio.sleep(interval / 2)
            figure = engine.utilization()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return figure
        finally:
            engine.stop()

    assert asyncio.run(measure(0.5)) == pytest.approx(0.5, rel=0.35)
    assert asyncio.run(measure(2.0)) > 1.4
