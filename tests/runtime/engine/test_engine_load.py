"""`embedding_utilization` as an autoscaler sees it: an engine that works for a known time, asked at a known rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import Matrix
from embedding_runtime.engine.policy import Limits
from embedding_runtime.engine.work import Lane

from tests.runtime.engine.test_engine import NumberModel, items

SECONDS_PER_TOKEN = 0.002


class WorkingModel(NumberModel):
    """Takes a known time per token, as a device does: without needing the processor. A busy machine wakes it late, so
    it notes what it really took."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = self.asked = 0.0

    def embed(self, payloads: Sequence[object]) -> Matrix:
        began = time.monotonic()
        time.sleep(SECONDS_PER_TOKEN * len(payloads))
        self.spent += time.monotonic() - began
        self.asked += SECONDS_PER_TOKEN * len(payloads)
        return np.array([[payload, 0] for payload in payloads], np.float32)


async def measure(load: float, *, seconds: float, window: float) -> tuple[float, float, float]:
    """(utilization, busy ratio, true load) after requests of ten tokens have arrived at `load` times what the model
    should be able to do. The true load is that, times how much slower the model was."""
    model = WorkingModel()
    engine = Engine(model, Limits(40, 100, 10**6, 0.0), load=LoadMeter(window))
    engine.start()
    try:
        # As a running server has: the speed of full batches.
        await engine.submit(items(*range(40)), Lane.BULK, 30)
        await asyncio.sleep(window / 4)
        tasks = []
        began = time.monotonic()
        interval = 10 * SECONDS_PER_TOKEN / load
        for number in range(int(seconds / interval)):
            tasks.append(asyncio.create_task(engine.submit(items(*range(10)), Lane.BULK, 60)))
            await asyncio.sleep(max(0.0, began + (number + 1) * interval - time.monotonic()))
        figures = engine.utilization(), engine.busy_ratio(), load * model.spent / model.asked
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return figures
    finally:
        engine.stop()


def test_half_load_reads_one_half() -> None:
    utilization, busy, load = asyncio.run(measure(0.5, seconds=3.0, window=2.0))
    assert utilization == pytest.approx(load, rel=0.3)
    assert busy == pytest.approx(load, rel=0.4)


def test_double_load_reads_two() -> None:
    utilization, busy, load = asyncio.run(measure(2.0, seconds=4.0, window=2.0))
    assert utilization == pytest.approx(load, rel=0.25)
    assert busy > 0.9
