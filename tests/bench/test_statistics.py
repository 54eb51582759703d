"""Percentiles, ratios and what may be concluded."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import Verdict, median, paired_ratio, percentile, spread, verdict


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: Sequence[float], fraction: float) -> None:
    found = percentile(values, fraction)
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-9
    assert sum(value < found for value in values) < fraction * len(values)


def test_percentiles_of_a_hundred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, fraction) for fraction in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert math.isnan(percentile([], 0.5))


def test_a_ratio_is_paired_by_round() -> None:
    """The machine was slow in the first round: that halves both and must not count."""
    assert paired_ratio([75, 150, 150], [50, 100, 100]) == 1.5
    assert math.isnan(paired_ratio([], []))
    with pytest.raises(ValueError, match="argument"):
        paired_ratio([1, 2], [1])


def test_the_median_leaves_out_what_was_not_measured() -> None:
    assert median([1, math.nan, 3]) == 2
    assert math.isnan(median([math.nan]))
    assert spread([90, 100, 110]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("ratio", "more_is_better", "expected"),
    [
        (1.09, True, Verdict.EVEN),
        (0.91, True, Verdict.EVEN),
        (1.2, True, Verdict.BETTER),
        (1.2, False, Verdict.WORSE),
        (0.8, True, Verdict.WORSE),
        (0.8, False, Verdict.BETTER),
        (math.nan, True, Verdict.EVEN),
    ],
)
def test_differences_within_ten_percent_are_no_finding(ratio: float, more_is_better: bool, expected: Verdict) -> None:
    assert verdict(ratio, more_is_better=more_is_better) is expected
