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
    """Takes a known time per token, as a device does: without needing the processor."""

    def embed(self, payloads: Sequence[object]) -> Matrix:
        time.sleep(SECONDS_PER_TOKEN * len(payloads))
        return np.array([[payload, 0] for payload in payloads], np.float32)


async def measure(load: float, *, seconds: float, window: float) -> tuple[float, float]:
    """(utilization, busy ratio) after requests of ten tokens have arrived at `load` times what the model can do."""
    engine = Engine(WorkingModel(), Limits(40, 100, 10**6, 0.0), load=LoadMeter(window))
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
        figures = engine.utilization(), engine.busy_ratio()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return figures
    finally:
        engine.stop()


def test_half_load_reads_one_half() -> None:
    utilization, busy = asyncio.run(measure(0.5, seconds=3.0, window=2.0))
    assert utilization == pytest.approx(0.5, abs=0.15)
    assert busy == pytest.approx(0.5, abs=0.2)


def test_double_load_reads_two() -> None:
    utilization, busy = asyncio.run(measure(2.0, seconds=4.0, window=2.0))
    assert utilization == pytest.approx(2.0, abs=0.4)
    assert busy > 0.9
