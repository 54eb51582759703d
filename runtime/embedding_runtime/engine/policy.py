"""Which queued items run next, and when. A pure state machine: callers pass the time, nothing here sleeps or locks.

The rules, in the order they matter:

- Items queue, not requests. A request is admitted whole or not at all, by tokens; one larger than the limit is
  admitted when the queue is empty, so that it is never refused for ever.
- A batch is a token budget and an item count. An item larger than the budget runs alone.
- A busy engine never waits: while a batch ran, the next one gathered. An idle one waits only when more work is
  plausible (requests being prepared, or clients that were answered a moment ago and are likely to return), at most
  `max_wait` counted from the arrival of the oldest item, never from the newest.
- Interactive items overtake bulk ones, but every token they overtake with earns the waiting bulk items credit, so bulk
  keeps `bulk_share` of the device and neither lane can starve the other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """Who waits: a person for one text, or a pipeline for thousands."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Reason(StrEnum):
    """Why a batch was started."""

    FULL = "full"
    WAITED = "waited"
    UNCONTESTED = "uncontested"
    BUSY = "busy"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batch and of the queue. Times are seconds."""

    max_batch_tokens: int
    max_batch_items: int
    max_queued_tokens: int
    max_wait: float
    bulk_share: float = 0.25
    max_queued_requests: int | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request: how much of it still queues and whether anyone still waits for it."""

    lane: Lane
    arrived: float
    tokens: tuple[int, ...]
    taken: int = 0
    cancelled: bool = False

    @property
    def queued_tokens(self) -> int:
        return 0 if self.cancelled else sum(self.tokens[self.taken :])


@dataclass(frozen=True, slots=True)
class Entry:
    """Item `index` of a request, in a batch."""

    ticket: Ticket
    index: int

    @property
    def tokens(self) -> int:
        return self.ticket.tokens[self.index]


@dataclass(frozen=True, slots=True)
class Run:
    """Run these entries now."""

    entries: tuple[Entry, ...]
    reason: Reason

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to run before `until` (None: until something arrives)."""

    until: float | None


class BatchPolicy:
    """The queue and the decision what to run next."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lanes: dict[Lane, deque[Ticket]] = {lane: deque() for lane in Lane}
        self._queued_tokens = dict.fromkeys(Lane, 0)
        self._queued_items = dict.fromkeys(Lane, 0)
        self._preparing = 0
        self._answered: tuple[float, int] = (float("-inf"), 0)
        self._bulk_credit = 0.0
        self.draining = False

    def queued_tokens(self, lane: Lane) -> int:
        return self._queued_tokens[lane]

    def queued_items(self, lane: Lane) -> int:
        return self._queued_items[lane]

    def oldest_arrival(self, lane: Lane) -> float | None:
        return min((ticket.arrived for ticket in self._lanes[lane]), default=None)

    def announce(self) -> None:
        """A request is being prepared and will be offered or withdrawn soon."""
        self._preparing += 1

    def withdraw(self) -> None:
        """An announced request was offered, or will not be."""
        self._preparing -= 1

    def offer(self, lane: Lane, tokens: tuple[int, ...], now: float) -> Ticket | None:
        """Admit a request whole, or return None when the queue has no room for it."""
        waiting = sum(self._queued_tokens.values())
        if waiting and waiting + sum(tokens) > self.limits.max_queued_tokens:
            return None
        requests = self.limits.max_queued_requests
        if requests is not None and sum(map(len, self._lanes.values())) >= requests:
            return None
        ticket = Ticket(lane, now, tokens)
        if tokens:
            self._lanes[lane].append(ticket)
            self._queued_tokens[lane] += sum(tokens)
            self._queued_items[lane] += len(tokens)
        return ticket

    def cancel(self, ticket: Ticket) -> int:
        """Forget what of the request still queues; the number of items forgotten."""
        if ticket.cancelled:
            return 0
        forgotten = len(ticket.tokens) - ticket.taken
        self._queued_tokens[ticket.lane] -= ticket.queued_tokens
        self._queued_items[ticket.lane] -= forgotten
        ticket.cancelled = True
        if forgotten:
            self._lanes[ticket.lane].remove(ticket)
        return forgotten

    def answered(self, requests: int, now: float) -> None:
        """A batch ended and completed so many requests: their clients may be back with the next ones."""
        self._answered = (now, requests)

    def decide(self, now: float) -> Run | Wait:
        """What an engine that is free at `now` should do."""
        queued = sum(self._queued_items.values())
        if not queued:
            return Wait(None)
        if self._is_full():
            return self._run(Reason.FULL)
        if self.draining:
            return self._run(Reason.DRAINING)
        oldest = min(ticket.arrived for lane in self._lanes.values() for ticket in lane)
        if oldest < self._answered[0]:
            return self._run(Reason.BUSY)
        deadline = oldest + self.limits.max_wait
        if now >= deadline:
            return self._run(Reason.WAITED)
        if not self._more_is_plausible(now):
            return self._run(Reason.UNCONTESTED)
        return Wait(deadline)

    def _is_full(self) -> bool:
        return (
            sum(self._queued_tokens.values()) >= self.limits.max_batch_tokens
            or sum(self._queued_items.values()) >= self.limits.max_batch_items
        )

    def _more_is_plausible(self, now: float) -> bool:
        if self._preparing > 0:
            return True
        when, requests = self._answered
        waiting = sum(len(lane) for lane in self._lanes.values())
        return now - when < self.limits.max_wait and requests > waiting

    def _run(self, reason: Reason) -> Run:
        budget = self.limits.max_batch_tokens
        batch: list[Entry] = []
        bulk_waited = bool(self._lanes[Lane.BULK])
        if self._bulk_credit > 0:
            self._bulk_credit -= self._take(Lane.BULK, int(self._bulk_credit), batch, strict=True)
        interactive = self._take(Lane.INTERACTIVE, budget, batch)
        self._take(Lane.BULK, budget, batch)
        if not self._lanes[Lane.BULK]:
            self._bulk_credit = 0.0
        elif bulk_waited:
            share = self.limits.bulk_share
            head = self._lanes[Lane.BULK][0]
            ceiling = max(budget, head.tokens[head.taken])
            self._bulk_credit = min(ceiling, self._bulk_credit + interactive * share / (1 - share))
        return Run(tuple(batch), reason)

    def _take(self, lane: Lane, budget: int, batch: list[Entry], *, strict: bool = False) -> int:
        """Move items from the head of a lane into the batch while it stays within the budget; the tokens moved.

        Unless `strict`, an empty batch takes its first item whatever its size: larger than the budget, it runs alone.
        """
        before = tokens = sum(entry.tokens for entry in batch)
        queue = self._lanes[lane]
        while queue and len(batch) < self.limits.max_batch_items:
            ticket = queue[0]
            size = ticket.tokens[ticket.taken]
            if tokens + size > budget and (batch or strict):
                break
            batch.append(Entry(ticket, ticket.taken))
            tokens += size
            ticket.taken += 1
            self._queued_tokens[lane] -= size
            self._queued_items[lane] -= 1
            if ticket.taken == len(ticket.tokens):
                queue.popleft()
        return tokens - before
