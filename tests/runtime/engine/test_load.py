"""The demand figure is what it says it is."""

from __future__ import annotations

import pytest
from embedding_runtime.engine.load import LoadMeter


def run(meter: LoadMeter, tokens: int, begin: float, end: float, *, full: bool = True) -> None:
    meter.ended(meter.started(begin), tokens, end, full=full)


def test_an_idle_engine_has_no_load() -> None:
    assert LoadMeter().utilization(0, 100.0) == 0


def test_half_busy_is_one_half() -> None:
    meter = LoadMeter(window=10)
    for second in range(10):
        meter.arrived(100, second)
        run(meter, 100, second, second + 0.5)
    assert meter.utilization(0, 10.0) == pytest.approx(0.5, abs=0.06)
    assert meter.busy_ratio(10.0) == pytest.approx(0.5)
    assert meter.busy_seconds == pytest.approx(5)
    assert meter.capacity == pytest.approx(200)


def test_work_counts_by_its_tokens_not_by_the_time_the_device_was_occupied() -> None:
    """A GPU is busy all the time with one client's short texts, and could do a hundred times as much."""
    meter = LoadMeter(window=10)
    run(meter, 1000, -0.1, 0.0)
    for step in range(1000):
        meter.arrived(10, step / 100)
        run(meter, 10, step / 100, (step + 1) / 100, full=False)
    assert meter.capacity == pytest.approx(10_000)
    assert meter.busy_ratio(10.0) == pytest.approx(1)
    assert meter.utilization(0, 10.0) == pytest.approx(0.1, abs=0.01)


def test_double_load_reads_two_and_goes_on_reading_two() -> None:
    meter = LoadMeter(window=10)
    for step in range(600):
        now = step / 10
        meter.arrived(20, now)
        run(meter, 10, now, now + 0.1)
        if step > 120:
            assert meter.utilization(10 * step, now + 0.1) == pytest.approx(2, abs=0.1)


def test_a_backlog_counts_for_one_window_at_most() -> None:
    meter = LoadMeter(window=10)
    run(meter, 1000, 0.0, 10.0)
    assert meter.utilization(0, 10.0) == pytest.approx(1)
    assert meter.utilization(500, 10.0) == pytest.approx(1.5)
    assert meter.utilization(1_000_000, 10.0) == pytest.approx(2)


def test_a_batch_that_still_runs_counts() -> None:
    meter = LoadMeter(window=10)
    meter.started(0.0)
    assert meter.utilization(0, 5.0) == pytest.approx(0.5)
    assert meter.utilization(0, 50.0) == pytest.approx(1)


def test_small_batches_only_raise_the_capacity() -> None:
    meter = LoadMeter(window=10)
    run(meter, 10, 0.0, 0.5, full=False)  # the first one is slow: it warms everything up
    assert meter.capacity == pytest.approx(20)
    run(meter, 10, 1.0, 1.01, full=False)
    assert meter.capacity == pytest.approx(1000)
    run(meter, 10, 2.0, 2.5, full=False)
    assert meter.capacity == pytest.approx(1000)


def test_capacity_follows_full_batches_both_ways() -> None:
    meter = LoadMeter(window=10)
    for step in range(20):
        run(meter, 1000, step, step + 1)
    assert meter.capacity == pytest.approx(1000)
    for step in range(20, 40):
        run(meter, 500, step, step + 1)
    assert meter.capacity == pytest.approx(500, rel=0.01)


def test_only_full_batches_of_late_prove_the_capacity() -> None:
    meter = LoadMeter()
    run(meter, 10, 0.0, 0.5, full=False)
    assert meter.proven_capacity(1.0) is None
    run(meter, 1000, 1.0, 2.0)
    assert meter.proven_capacity(30.0) == pytest.approx(1000)
    assert meter.proven_capacity(63.0) is None


def test_memory_does_not_grow_with_traffic() -> None:
    meter = LoadMeter(window=10)
    for step in range(20_000):
        meter.arrived(1, step / 1000)
    assert len(meter._arrivals) <= 42
