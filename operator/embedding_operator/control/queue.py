"""A work queue of resource keys: no duplicates, one worker per key, back-off per key, delayed entries.

What is queued is only the name of the thing to look at, never an event: two changes in quick succession cost one look,
and a look always sees the newest state.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum

Key = tuple[str, str]
"""Namespace and name of an EmbeddingService."""

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0
OLDEST_TURN = 4
SLACK = 64
"""So many superseded entries are not worth cleaning up."""


class Urgency(IntEnum):
    """Why a service is to be looked at, the most urgent first."""

    ASKED = 0
    """Somebody changed its spec, and waits."""
    NEWS = 1
    """Something about it changed: a new service, a child, a Pod."""
    ROUTINE = 2
    """Its time has come."""


def backoff(failures: int, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many failures in a row: doubling from 1 s to 5 min, ± 20 %."""
    doublings = min(max(0, failures - 1), 20)
    delay = min(FIRST_DELAY_SECONDS * 2.0**doublings, LONGEST_DELAY_SECONDS)
    return float(delay * (0.8 + 0.4 * jitter()))


@dataclass(slots=True)
class WorkQueue:
    """Hands out keys that are due. All methods belong to one event loop.

    `clock` is a monotonic time in seconds.
    """

    clock: Callable[[], float]
    _due: dict[Key, float] = field(default_factory=dict)
    _heaps: tuple[list[tuple[float, Key]], ...] = field(default_factory=lambda: tuple([] for _ in Urgency))
    """By urgency: what is due when."""
    _urgency: dict[Key, Urgency] = field(default_factory=dict)
    """The most urgent reason to look at a key; what is not in it is routine."""
    _turn: int = 0
    _running: dict[Key, float] = field(default_factory=dict)
    _again: dict[Key, float] = field(default_factory=dict)
    _failures: dict[Key, int] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _moved_at: float = field(default=float("-inf"))

    def add(self, key: Key, delay: float = 0.0, urgency: Urgency = Urgency.ROUTINE) -> None:
        """Have `key` looked at in `delay` seconds, or earlier if it is due earlier already.

        What is more urgent overtakes the other looks that are due.
        """
        when = self.clock() + delay
        known = self._urgency.get(key, Urgency.ROUTINE)
        more = urgency < known
        if more:
            self._urgency[key] = urgency
        if key in self._running:
            self._again[key] = min(when, self._again.get(key, when))
            return
        if key in self._due and self._due[key] <= when:
            if not more:
                return
            when = self._due[key]
        self._due[key] = when
        heapq.heappush(self._heaps[min(urgency, known)], (when, key))
        if sum(map(len, self._heaps)) > 2 * len(self._due) + SLACK:
            self._compact()
        self._changed.set()

    def _compact(self) -> None:
        """Drop what was superseded by an earlier time: until its own time it would only take room."""
        for heap in self._heaps:
            heap[:] = {(when, key) for when, key in heap if self._due.get(key) == when}
            heapq.heapify(heap)

    def failures(self, key: Key) -> int:
        """How many looks in a row have failed."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """The resource is gone: its failures are forgotten. What is still queued stays: one more look costs little,
        and the name may belong to a new resource by then."""
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Start anew, when nobody works: nothing waits, nothing runs, nothing failed."""
        self._due.clear()
        for heap in self._heaps:
            heap.clear()
        self._urgency.clear()
        self._running.clear()
        self._again.clear()
        self._failures.clear()

    @property
    def depth(self) -> int:
        """How many keys are due now."""
        now = self.clock()
        return sum(1 for when in self._due.values() if when <= now)

    @property
    def oldest_seconds(self) -> float:
        """For how long the longest-waiting key has been due."""
        return max(0.0, self.clock() - min(self._due.values(), default=self.clock()))

    @property
    def stuck_seconds(self) -> float:
        """For how long something has been due while nothing was taken and nothing done. A queue that is long, but
        moves, is not stuck."""
        if not self.depth:
            return 0.0
        return min(self.oldest_seconds, self.clock() - self._moved_at)

    @property
    def longest_running_seconds(self) -> float:
        """For how long the longest look has been under way."""
        return max(0.0, self.clock() - min(self._running.values(), default=self.clock()))

    async def take(self) -> Key:
        """The next key that is due; it is running until `done` or `failed`."""
        while True:
            self._changed.clear()
            key, wait = self._next()
            if key is not None:
                del self._due[key]
                self._urgency.pop(key, None)
                self._running[key] = self._moved_at = self.clock()
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _next(self) -> tuple[Key | None, float | None]:
        """The key whose turn it is, or how long to wait for one: the most urgent that is due. Every fourth turn is that
        of the one that waits longest, so that changes without end do not keep the others from being looked at."""
        now = self.clock()
        heads = [heap[0] for heap in self._heaps if self._pruned(heap)]
        due = [head for head in heads if head[0] <= now]
        if not due:
            return None, min((when - now for when, _ in heads), default=None)
        self._turn = (self._turn + 1) % OLDEST_TURN
        return (due[0] if self._turn else min(due))[1], None

    def _pruned(self, heap: list[tuple[float, Key]]) -> bool:
        """Drop from the top what was taken or moved since; whether anything is left."""
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return bool(heap)

    def done(self, key: Key, again_after: float | None = None) -> None:
        """The look succeeded. `again_after` seconds from now there will be another."""
        self._failures.pop(key, None)
        self._finish(key, again_after)

    def failed(self, key: Key, after: float | None = None) -> float:
        """The look failed: look again after `after` seconds, or a back-off that grows with each failure."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = after if after is not None else backoff(self._failures[key])
        self._finish(key, delay)
        return delay

    def _finish(self, key: Key, delay: float | None) -> None:
        self._running.pop(key, None)
        self._moved_at = self.clock()
        asked = self._again.pop(key, None)
        if asked is not None:
            self.add(key, max(0.0, asked - self.clock()))
        if delay is not None:
            self.add(key, delay)

    async def work(self, handle: Callable[[Key], Awaitable[None]]) -> None:
        """Take keys for ever and hand each to `handle`, which calls `done` or `failed`.

        A worker that is cancelled, or whose `handle` raises, gives its key back: it is looked at again.
        """
        while True:
            key = await self.take()
            try:
                await handle(key)
            except BaseException:
                self._finish(key, 0.0)
                raise
