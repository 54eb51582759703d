"""How busy the Pods are, in whole numbers a person can read, and when that is worth a write. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from embedding_operator.observe.snapshot import Reading, RuntimeMetrics

WRITE_INTERVAL = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Load:
    """`status.load`."""

    utilization_percent: int
    tokens_per_second: int
    queued_tokens: int

    def as_status(self) -> dict[str, int]:
        return {
            "utilizationPercent": self.utilization_percent,
            "tokensPerSecond": self.tokens_per_second,
            "queuedTokens": self.queued_tokens,
        }


def load_of(readings: Mapping[str, Reading], before: Mapping[str, RuntimeMetrics]) -> Load | None:
    """The service's load: mean utilization, summed token rate and queue. None where no Pod publishes figures.

    `before` holds each Pod's previous figures; a rate needs two. A counter that went down is a restarted process and
    counts from zero.
    """
    now = {pod: reading.metrics for pod, reading in readings.items() if reading.ready and reading.metrics is not None}
    if not now:
        return None
    rate = 0.0
    for pod, figures in now.items():
        earlier = before.get(pod)
        if earlier is None or figures.at <= earlier.at:
            continue
        tokens = figures.tokens_total - earlier.tokens_total
        rate += (tokens if tokens >= 0 else figures.tokens_total) / (figures.at - earlier.at).total_seconds()
    return Load(
        utilization_percent=round(100 * sum(figures.utilization for figures in now.values()) / len(now)),
        tokens_per_second=round(rate),
        queued_tokens=round(sum(figures.queued_tokens for figures in now.values())),
    )


def any_fresh(readings: Mapping[str, Reading], before: Mapping[str, RuntimeMetrics]) -> bool:
    """Whether some Pod gave figures since the look before. A Pod that missed an answer is known by its earlier one."""
    return any(
        reading.metrics is not None and (pod not in before or reading.metrics.at > before[pod].at)
        for pod, reading in readings.items()
    )


def noticeable(shown: Mapping[str, Any] | None, load: Load) -> bool:
    """Whether a person who reads the status would care about the difference."""
    if not shown:
        return True
    utilization = int(shown.get("utilizationPercent") or 0)
    rate = int(shown.get("tokensPerSecond") or 0)
    queued = int(shown.get("queuedTokens") or 0)
    return (
        abs(load.utilization_percent - utilization) >= 5
        or abs(load.tokens_per_second - rate) > max(10, rate // 5)
        or (load.queued_tokens == 0) != (queued == 0)
        or abs(load.queued_tokens - queued) > max(1000, queued // 2)
    )


def load_to_show(
    shown: Mapping[str, Any] | None,
    load: Load | None,
    written_at: datetime | None,
    now: datetime,
    *,
    fresh: bool = True,
) -> dict[str, Any] | None:
    """What `status.load` should say: the new figures when they are worth a write and one is due, else the old.

    `fresh` says whether there are new figures at all.
    """
    if load is None:
        return None
    if shown and not fresh:
        return dict(shown)
    due = written_at is None or now - written_at >= WRITE_INTERVAL
    if shown and not (due and noticeable(shown, load)):
        return dict(shown)
    return load.as_status()
