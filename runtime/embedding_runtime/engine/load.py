"""How loaded the engine is: measured capacity, and the demand figure that autoscaling follows. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Arrivals are added up in slots this long, so that memory does not grow with traffic.
_SLOTS = 40
# A batch weighs on the smoothed capacity by its duration; this many seconds of batches replace the old figure.
_SMOOTHING = 2.0


# Parts of the device that run at once add up to all of it, but for rounding.
_WHOLE = 0.999


@dataclass(slots=True, eq=False)
class Running:
    """A batch that runs since `since` on a part of the device (1: all of it).

    `spent` is how many seconds of the whole device it had so far; `crowded`: none of the device was idle meanwhile.
    """

    since: float
    share: float
    spent: float = 0.0
    crowded: bool = True


class LoadMeter:
    """Measures capacity and demand over a sliding window.

    utilization = max(A, D + min(Q, C)) / C, where in tokens: A arrived in the window, D were done in it, Q wait, and C
    is what the window has room for at the measured capacity. 1 is saturated; 2 would need twice as many replicas. Work
    done counts by its tokens, not by the time the device was occupied: a batch with one short text occupies a GPU
    almost as long as a full one. What waits counts for one window at most: a backlog says that capacity is short, but
    not that it is as many times too small as the backlog is old.

    Capacity is tokens per second in full batches while all of the device is at work. Other batches only raise it: small
    ones waste some of it, and a part is faster alone than beside others, so that what they show is proven by nothing.
    """

    def __init__(self, window: float = 10.0) -> None:
        self._window = window
        self._batches: deque[tuple[float, float, int, float]] = deque()
        self._arrivals: deque[tuple[float, int]] = deque()
        self._running: set[Running] = set()
        self._advanced_to = 0.0
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

    def started(self, now: float, share: float = 1.0) -> Running:
        """A batch begins on a share of the device; to be given to `ended`."""
        self._advance(now)
        running = Running(now, share)
        self._running.add(running)
        return running

    def ended(self, running: Running, tokens: int, now: float, *, full: bool) -> None:
        """The batch that was started is done. `full`: it was large enough to be fast."""
        self._advance(now)
        self._running.discard(running)
        duration, spent = max(now - running.since, 1e-6), max(running.spent, 1e-6)
        self._batches.append((running.since, now, tokens, min(1.0, running.spent / duration)))
        self.busy_seconds += running.spent
        self._forget(now)
        speed = tokens / spent
        proves = full and running.crowded
        if proves or speed > self._capacity:
            settled = self._proven_at is not None
            self._capacity += (min(0.5, spent / _SMOOTHING) if settled else 1.0) * (speed - self._capacity)
        if proves:
            self._proven_at = now

    def busy_ratio(self, now: float) -> float:
        """The part of the window and of the device in which batches ran."""
        self._forget(now)
        start = now - self._window
        busy = sum((end - max(begin, start)) * share for begin, end, _, share in self._batches)
        busy += sum((now - max(running.since, start)) * share for running, share in self._shares())
        return min(1.0, busy / self._window)

    def utilization(self, queued_tokens: int, now: float) -> float:
        if not self._capacity:
            # Nothing was measured yet: a first batch that runs is all there is to say.
            return self.busy_ratio(now)
        self._forget(now)
        room = self._capacity * self._window
        start = now - self._window
        done = sum(
            tokens * (end - max(begin, start)) / max(end - begin, 1e-6) for begin, end, tokens, _ in self._batches
        )
        done += sum(self._capacity * (now - max(running.since, start)) * share for running, share in self._shares())
        arrived = sum(tokens for _, tokens in self._arrivals)
        return max(arrived, done + min(queued_tokens, room)) / room

    def _shares(self) -> list[tuple[Running, float]]:
        """What each running batch really has: more parts than there are may be taken, and are shared then."""
        whole = max(1.0, sum(running.share for running in self._running))
        return [(running, running.share / whole) for running in self._running]

    def _advance(self, now: float) -> None:
        """Count the time since something last started or ended."""
        seconds, self._advanced_to = max(0.0, now - self._advanced_to), now
        shares = self._shares()
        crowded = sum(share for _, share in shares) >= _WHOLE
        for running, share in shares:
            running.spent += seconds * share
            running.crowded = running.crowded and crowded

    def _forget(self, now: float) -> None:
        start = now - self._window
        while self._batches and self._batches[0][1] <= start:
            self._batches.popleft()
        while self._arrivals and self._arrivals[0][0] <= start:
            self._arrivals.popleft()
