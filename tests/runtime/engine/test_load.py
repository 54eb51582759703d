"""The demand figure is what it says it is."""

from __future__ import annotations

import pytest
from embedding_runtime.engine.load import LoadMeter


def test_an_idle_engine_has_no_load() -> None:
    assert LoadMeter().utilization(0, 100.0) == 0


def test_half_busy_is_one_half() -> None:
    meter = LoadMeter(window=10)
    for second in range(10):
        meter.started(second)
        meter.ended(100, second + 0.5)
    assert meter.utilization(0, 10.0) == pytest.approx(0.5)
    assert meter.capacity == pytest.approx(200)


def test_a_backlog_counts_by_the_time_it_needs() -> None:
    meter = LoadMeter(window=10)
    meter.started(0.0)
    meter.ended(1000, 10.0)
    assert meter.utilization(0, 10.0) == pytest.approx(1)
    assert meter.utilization(2000, 10.0) == pytest.approx(3)


def test_a_batch_that_still_runs_counts() -> None:
    meter = LoadMeter(window=10)
    meter.started(0.0)
    assert meter.utilization(0, 5.0) == pytest.approx(0.5)
    assert meter.utilization(0, 50.0) == pytest.approx(1)
