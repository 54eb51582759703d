"""Medians, percentiles and what may be concluded from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

# Differences below this are no finding: runs of the same program differ as much on a shared machine.
NO_FINDING = 0.10


class Verdict(StrEnum):
    """What a ratio of two measurements says."""

    BETTER = "better"
    EVEN = "within 10 %"
    WORSE = "worse"


def percentile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile: the least value that `fraction` of the values do not exceed; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The median of the values that are numbers; NaN of none."""
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.median(numbers) if numbers else math.nan


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours / theirs, so that what slows down a whole round counts for neither."""
    return median([a / b if b else math.nan for a, b in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median."""
    middle = median(values)
    return (max(values) - min(values)) / middle if values and middle else math.nan


def verdict(ratio: float, *, more_is_better: bool) -> Verdict:
    """Whether ours / theirs is a finding at all, and for whom."""
    if math.isnan(ratio) or abs(ratio - 1) < NO_FINDING:
        return Verdict.EVEN
    return Verdict.BETTER if (ratio > 1) == more_is_better else Verdict.WORSE
