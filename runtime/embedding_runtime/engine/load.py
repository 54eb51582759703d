"""How loaded the engine is: measured capacity, and the demand figure that autoscaling follows. Pure."""

from __future__ import annotations

from collections import deque

# Arrivals are added up in slots this long, so that memory does not grow with traffic.
_SLOTS = 40
# A batch weighs on the smoothed capacity by its duration; this many seconds of batches replace the old figure.
_SMOOTHING = 2.0


class LoadMeter:
    """Measures capacity and demand over a sliding window.

    utilization = max(A, D + min(Q, C)) / C, where in tokens: A arrived in the window, D were done in it, Q wait, and C
    is what the window has room for at the measured capacity. 1 is saturated; 2 would need twice as many replicas. Work
    done counts by its tokens, not by the time the device was occupied: a batch with one short text occupies a GPU
    almost as long as a full one. What waits counts for one window at most: a backlog says that capacity is short, but
    not that it is as many times too small as the backlog is old.

    Capacity is tokens per second in full batches. Smaller ones prove only that it is at least as much.
    """

    def __init__(self, window: float = 10.0) -> None:
        self._window = window
        self._batches: deque[tuple[float, float, int]] = deque()
        self._arrivals: deque[tuple[float, int]] = deque()
        self._running_since: float | None = None
        self._capacity = 0.0
        self._proven_at: float | None = None
        self.busy_seconds = 0.0

    @property
    def capacity(self) -> float:
        """Tokens per second while busy; 0 until the first batch ended."""
        return self._capacity

    def proven_capacity(self, now: float, within: float = 60.0) -> float | None:
        """The capacity if full batches showed it lately; None when it is only a lower bound or old."""
        if self._proven_at is None or now - self._proven_at > within:
            return None
        return self._capacity

    def arrived(self, tokens: int, now: float) -> None:
        slot = now - now % (self._window / _SLOTS)
        if self._arrivals and self._arrivals[-1][0] == slot:
            tokens += self._arrivals.pop()[1]
        self._arrivals.append((slot, tokens))
        self._forget(now)

    def started(self, now: float) -> None:
        self._running_since = now

    def ended(self, tokens: int, now: float, *, full: bool) -> None:
        """The batch that was started is done. `full`: its budget was used up."""
        started = now if self._running_since is None else self._running_since
        self._running_since = None
        duration = max(now - started, 1e-6)
        self._batches.append((started, now, tokens))
        self.busy_seconds += now - started
        self._forget(now)
        speed = tokens / duration
        if full and self._proven_at is None:
            self._capacity = speed
        elif full or speed > self._capacity:
            settled = self._proven_at is not None
            self._capacity += (min(0.5, duration / _SMOOTHING) if settled else 1.0) * (speed - self._capacity)
        if full:
            self._proven_at = now

    def busy_ratio(self, now: float) -> float:
        """The part of the window in which a batch ran."""
        self._forget(now)
        start = now - self._window
        busy = sum(end - max(begin, start) for begin, end, _ in self._batches)
        if self._running_since is not None:
            busy += now - max(self._running_since, start)
        return min(1.0, busy / self._window)

    def utilization(self, queued_tokens: int, now: float) -> float:
        if not self._capacity:
            # Nothing was measured yet: a first batch that runs is all there is to say.
            return self.busy_ratio(now)
        self._forget(now)
        room = self._capacity * self._window
        start = now - self._window
        done = sum(tokens * (end - max(begin, start)) / max(end - begin, 1e-6) for begin, end, tokens in self._batches)
        if self._running_since is not None:
            done += self._capacity * (now - max(self._running_since, start))
        arrived = sum(tokens for _, tokens in self._arrivals)
        return max(arrived, done + min(queued_tokens, room)) / room

    def _forget(self, now: float) -> None:
        start = now - self._window
        while self._batches and self._batches[0][1] <= start:
            self._batches.popleft()
        while self._arrivals and self._arrivals[0][0] <= start:
            self._arrivals.popleft()
