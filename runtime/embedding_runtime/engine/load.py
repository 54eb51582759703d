"""How loaded the engine is: the demand figure that autoscaling follows."""

from __future__ import annotations

from collections import deque


class LoadMeter:
    """Measures capacity and demand over a sliding window.

    utilization = (busy seconds in the window + queued tokens / capacity) / window: 1.0 is saturated, 2.0 would need
    twice as many replicas to keep up. Capacity is tokens per second while busy, smoothed over batches.
    """

    def __init__(self, window: float = 10.0) -> None:
        self._window = window
        self._batches: deque[tuple[float, float]] = deque()
        self._capacity = 0.0
        self._running_since: float | None = None

    @property
    def capacity(self) -> float:
        """Tokens per second while busy; 0 until the first batch ended."""
        return self._capacity

    def started(self, now: float) -> None:
        self._running_since = now

    def ended(self, tokens: int, now: float) -> None:
        started = now if self._running_since is None else self._running_since
        self._running_since = None
        self._batches.append((started, now))
        self._forget(now)
        duration = max(now - started, 1e-6)
        if not self._capacity:
            self._capacity = tokens / duration
            return
        weight = min(0.5, duration / self._window)
        self._capacity += weight * (tokens / duration - self._capacity)

    def utilization(self, queued_tokens: int, now: float) -> float:
        self._forget(now)
        start = now - self._window
        busy = sum(end - max(begin, start) for begin, end in self._batches)
        if self._running_since is not None:
            busy += now - max(self._running_since, start)
        backlog = queued_tokens / self._capacity if self._capacity else 0.0
        return (busy + backlog) / self._window

    def _forget(self, now: float) -> None:
        while self._batches and self._batches[0][1] <= now - self._window:
            self._batches.popleft()
