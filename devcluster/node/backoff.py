"""Waiting times that double. Pure but for the clock it is given."""

from __future__ import annotations


class BackOff:
    """A kubelet's back-off: nothing before the first retry, then `base`, doubled each time up to `30 * base`.

    Quiet for twice the longest wait resets it.
    """

    def __init__(self, base: float) -> None:
        self._base = base
        self._wait = 0.0

    @property
    def longest(self) -> float:
        """The longest wait in seconds (a kubelet's 300 with its base of 10)."""
        return self._base * 30

    def next(self, ran_since: float, now: float) -> float:
        """Seconds to wait before the next try; `ran_since` is when the last one started. Times are monotonic."""
        if now - ran_since > 2 * self.longest:
            self._wait = 0.0
        wait = self._wait
        self._wait = min(self.longest, wait * 2) if wait else self._base
        return wait
