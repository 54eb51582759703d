"""The budget of a batch: halved, recovered, and not tried again at what failed."""

from __future__ import annotations

from embedding_runtime.engine.budget import MemoryBudget, Pace
from embedding_runtime.engine.work import Lane
from hypothesis import given
from hypothesis import strategies as st

QUERIES, BULK = frozenset({Lane.INTERACTIVE}), frozenset({Lane.BULK})


def run(budget: MemoryBudget, fits: int, batches: int, now: float) -> int:
    """Full batches on a device with room for so many tokens; how many did not fit."""
    failures = 0
    for _ in range(batches):
        tokens = budget.tokens
        if tokens > fits:
            failures += 1
            budget.exhausted(tokens, now)
        else:
            budget.fitted(tokens, now)
    return failures


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_the_budget_settles_below_what_fits_and_stops_failing(configured: int, fits: int) -> None:
    budget = MemoryBudget(configured)
    run(budget, fits, 1000, 0.0)
    assert run(budget, fits, 500, 1.0) == 0
    assert 1 <= budget.tokens <= configured
    assert budget.tokens <= fits
    assert budget.tokens >= min(configured, fits) * 0.4 - 1


def test_a_shortage_that_passed_is_forgotten() -> None:
    budget = MemoryBudget(1000)
    assert run(budget, 300, 500, 0.0) <= 4
    assert 200 < budget.tokens <= 300
    assert run(budget, 10_000, 500, 599.0) == 0
    assert budget.tokens < 1000
    assert run(budget, 10_000, 500, 601.0) == 0
    assert budget.tokens == 1000


def test_a_device_that_stays_too_small_is_asked_ever_more_rarely() -> None:
    budget = MemoryBudget(1000)
    failures = [sum(run(budget, 300, 20, hour * 3600 + minute * 60) for minute in range(60)) for hour in range(12)]
    assert sum(failures[6:]) <= 8
    assert sum(failures) < 60


def test_small_batches_prove_nothing() -> None:
    budget = MemoryBudget(1000)
    budget.exhausted(1000, 0.0)
    for _ in range(100):
        budget.fitted(10, 1.0)
    assert budget.tokens == 500


def test_bulk_is_cut_to_the_step_that_a_query_takes_and_not_below_a_quarter() -> None:
    pace = Pace()
    pace.arrived(Lane.INTERACTIVE, 0.0)
    assert pace.bulk_tokens(512, 1.0) == 512
    pace.ran(QUERIES, 16, 0.004, 0.004)
    pace.ran(BULK, 512, 0.060, 0.010)
    assert pace.bulk_tokens(512, 1.0) == 204
    pace.ran(BULK, 512, 0.600, 0.600)
    assert pace.bulk_tokens(512, 1.0) == 128
    assert pace.bulk_tokens(512, 11.0) == 512
