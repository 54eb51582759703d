"""Which queued work runs next, and when. A pure state machine: callers pass the time, nothing here sleeps or locks.

The rules, in the order they matter:

- Items queue, not requests. A request is admitted whole or not at all, by tokens; one larger than the limit is
  admitted when the queue is empty, so that it is never refused for ever. One that cannot be answered in time by the
  speed measured of late is refused at once instead of late.
- Identical sequences in flight are computed once, for everybody who asked. A query that finds its sequence among
  queued bulk takes it along into its own lane.
- A batch is a budget of tokens, items and image tiles. An item larger than the budget runs alone. Where several
  workers run batches side by side, one takes its share of what there is and leaves the rest to the others.
- A busy engine never waits: while a batch ran, the next one gathered. An idle one waits only when more work of the
  same lane is plausible (requests being prepared, or clients that were answered a moment ago and are likely to
  return), at most `max_wait` counted from the arrival of the oldest item, never from the newest.
- Queries overtake bulk, even in the middle of a bulk batch where the model allows it, and do not share their batch
  with more bulk than prolongs it by half. Every token they overtake with earns bulk credit; bulk worth a batch runs
  next, uninterrupted. So bulk keeps `bulk_share` of the device and neither lane can starve the other.
- Within a lane, items are taken by length inside a window (lane_queue.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from embedding_runtime.engine.budget import MemoryBudget, Pace
from embedding_runtime.engine.lane_queue import LaneQueue
from embedding_runtime.engine.model import Item
from embedding_runtime.engine.work import InFlight, Lane, Stage, Ticket, Work


class Reason(StrEnum):
    """Why a batch was started: its budget was used up, the wait was over, nobody else was likely to come, it gathered
    while the batch before it ran, it interrupted a batch of bulk, or the server is stopping."""

    FULL = "full"
    TIMER = "timer"
    IDLE = "idle"
    BUSY = "busy"
    INTERRUPT = "interrupt"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batch and of the queue. Times are seconds.

    `window_items` is how many items of a lane, in order of arrival, are taken by length; 1 is worth it wherever nothing
    is padded. `padded` counts a batch as the model fills it up: its items times its longest.
    """

    max_batch_tokens: int
    max_batch_items: int
    max_queued_tokens: int
    max_wait: float
    bulk_share: float = 0.25
    max_queued_requests: int | None = None
    max_batch_tiles: int | None = None
    window_items: int = 1
    padded: bool = False


@dataclass(frozen=True)
class Run:
    """Run this work now. `funded`: it is bulk's guaranteed share, and not to be interrupted."""

    works: tuple[Work, ...]
    reason: Reason
    funded: bool = False

    @cached_property
    def tokens(self) -> int:
        return sum(work.tokens for work in self.works)

    @cached_property
    def tokens_by_lane(self) -> Mapping[Lane, int]:
        """Only the lanes that take part."""
        tokens: dict[Lane, int] = {}
        for work in self.works:
            tokens[work.lane] = tokens.get(work.lane, 0) + work.tokens
        return tokens


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to run before `until` (None: until something arrives)."""

    until: float | None


class Cause(StrEnum):
    """Why a request was not admitted."""

    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request was not admitted; it may be once about `tokens` of those that wait are done."""

    cause: Cause
    tokens: float


class _Batch:
    """A batch being put together."""

    def __init__(self, limits: Limits, memory: MemoryBudget) -> None:
        self._items = max(1, int(limits.max_batch_items * memory.share))
        tiles = limits.max_batch_tiles
        self._tiles_limit = None if tiles is None else max(1, int(tiles * memory.share))
        self._padded = limits.padded
        self._longest = self._tiles = 0
        self.works: list[Work] = []
        self.tokens = 0

    def take(self, work: Work, budget: int) -> bool:
        """Add the work if all stays within the budget. The first is taken whatever its size: it runs alone."""
        tokens, longest = self.tokens + work.tokens, max(self._longest, work.tokens)
        tiles, count = self._tiles + work.item.tiles, len(self.works) + 1
        if self.works:
            cost = longest * count if self._padded else tokens
            too_many_tiles = self._tiles_limit is not None and tiles > self._tiles_limit
            if cost > budget or count > self._items or too_many_tiles:
                return False
        self.tokens, self._longest, self._tiles = tokens, longest, tiles
        self.works.append(work)
        return True


class BatchPolicy:
    """The queue and the decision what to run next."""

    def __init__(self, limits: Limits, *, workers: int = 1) -> None:
        self.limits = limits
        self._workers = workers
        self.memory = MemoryBudget(limits.max_batch_tokens)
        self.pace = Pace()
        self.draining = False
        self._lanes = {lane: LaneQueue(limits.window_items) for lane in Lane}
        self._in_flight = InFlight()
        self._running_tokens = 0
        self._extra_readers = 0
        self._waiting_requests = 0
        self._preparing = dict.fromkeys(Lane, 0)
        # Clients that were answered by the last batch and did not come back yet.
        self._expected = dict.fromkeys(Lane, 0)
        self._answered_at = float("-inf")
        self._bulk_credit = 0.0

    def queued_tokens(self, lane: Lane) -> int:
        return self._lanes[lane].tokens

    def queued_items(self, lane: Lane) -> int:
        return len(self._lanes[lane])

    def oldest_arrival(self, lane: Lane) -> float | None:
        return self._lanes[lane].oldest_arrival()

    def announce(self, lane: Lane) -> None:
        """A request is being prepared and will be offered or withdrawn soon."""
        self._preparing[lane] += 1

    def withdraw(self, lane: Lane) -> None:
        """An announced request was offered, or will not be."""
        self._preparing[lane] -= 1

    def offer(
        self, lane: Lane, items: Sequence[Item], now: float, *, speed: float | None = None, timeout: float | None = None
    ) -> Ticket | Refusal:
        """Admit a request whole, or not at all.

        With `speed` (tokens per second, measured) a request is refused that cannot be done within `timeout` seconds.
        """
        self.pace.arrived(lane, now)
        needed = self._in_flight.unique(items)
        tokens = sum(item.tokens for item in needed)
        refusal = self._refusal(lane, tokens, len(items) - len(needed), speed, timeout)
        if refusal is not None:
            return refusal
        ticket = Ticket(lane, now, unsettled=len(items), new_tokens=tokens, shared_items=len(items) - len(needed))
        ticket.works = tuple([self._work_for(item, lane, now, ticket, index) for index, item in enumerate(items)])
        self._extra_readers += ticket.shared_items
        self._waiting_requests += bool(items)
        self._expected[lane] -= 1
        return ticket

    def cancel(self, ticket: Ticket) -> int:
        """Nobody waits for this request any more; the number of its inputs that were never taken up."""
        if ticket.cancelled or not ticket.unsettled:
            return 0
        ticket.cancelled = True
        self._waiting_requests -= 1
        dropped = 0
        for work in ticket.works:
            if work.stage is Stage.SETTLED:
                continue
            work.interest -= 1
            if work.stage is Stage.QUEUED:
                dropped += 1
                if not work.interest:
                    self._lanes[work.lane].remove(work)
                    self._settle(work)
            elif not work.interest:
                # It may have been left out of the batch already: what comes now must not wait for it.
                self._in_flight.remove(work)
        return dropped

    def settle(self, run: Run, now: float) -> list[Ticket]:
        """A batch ended: nobody can join its work any more. Returns the requests of which nothing is left to do."""
        done: list[Ticket] = []
        for work in run.works:
            self._running_tokens -= work.tokens
            self._settle(work)
            for ticket, _ in work.readers:
                ticket.unsettled -= 1
                if not ticket.unsettled and not ticket.cancelled:
                    done.append(ticket)
        self._waiting_requests -= len(done)
        # Those of a batch that another worker ran a moment ago are still on their way back.
        recent = self._workers > 1 and now - self._answered_at < self.limits.max_wait
        self._expected = {
            lane: sum(ticket.lane is lane for ticket in done) + (max(0, self._expected[lane]) if recent else 0)
            for lane in Lane
        }
        self._answered_at = now
        return done

    def decide(self, now: float) -> Run | Wait:
        """What an engine that is free at `now` should do."""
        if self.is_empty:
            return Wait(None)
        if self._is_full():
            return self._run(Reason.FULL, now)
        if self.draining:
            return self._run(Reason.DRAIN, now)
        waiting = [(since, lane) for lane in Lane if (since := self._lanes[lane].waiting_since()) is not None]
        oldest = min(since for since, _ in waiting)
        if oldest < self._answered_at:
            return self._run(Reason.BUSY, now)
        deadline = oldest + self.limits.max_wait
        if now >= deadline:
            return self._run(Reason.TIMER, now)
        if not self._more_is_plausible(waiting[0][1], now):
            return self._run(Reason.IDLE, now)
        return Wait(deadline)

    def interrupt(self, run: Run) -> Run | None:
        """Queries to run now, in the middle of a batch of bulk; None when there are none or bulk has waited enough."""
        if run.funded or Lane.INTERACTIVE in run.tokens_by_lane or self._bulk_credit >= run.tokens:
            return None
        batch = _Batch(self.limits, self.memory)
        self._fill(batch, Lane.INTERACTIVE, self._fair_share(self._lanes[Lane.INTERACTIVE].tokens))
        if not batch.works:
            return None
        self._earn(batch.tokens)
        return self._started(batch, Reason.INTERRUPT)

    @property
    def is_empty(self) -> bool:
        """Whether nothing queues."""
        return not any(len(queue) for queue in self._lanes.values())

    @property
    def queries_wait(self) -> bool:
        """Whether asking `interrupt` is worthwhile; may be read without a lock."""
        return len(self._lanes[Lane.INTERACTIVE]) > 0

    def _refusal(
        self, lane: Lane, tokens: int, shared: int, speed: float | None, timeout: float | None
    ) -> Refusal | None:
        limits = self.limits
        waiting = sum(queue.tokens for queue in self._lanes.values())
        # A reader of shared work costs no computing, but a row of its answer: counted as a token.
        held = waiting + self._extra_readers
        if held and held + tokens + shared > limits.max_queued_tokens:
            return Refusal(Cause.QUEUE_FULL, min(waiting, held + tokens + shared - limits.max_queued_tokens))
        if limits.max_queued_requests is not None and self._waiting_requests >= limits.max_queued_requests:
            return Refusal(Cause.QUEUE_FULL, waiting / max(1, self._waiting_requests))
        if speed is None or timeout is None or not tokens:
            return None
        ahead, rate = waiting, speed
        if lane is Lane.INTERACTIVE:
            ahead = self._lanes[Lane.INTERACTIVE].tokens
            rate = speed * (1 - limits.bulk_share) if len(self._lanes[Lane.BULK]) else speed
        late = (self._running_tokens + ahead + tokens) - timeout * rate
        return Refusal(Cause.DEADLINE, late) if late > 0 else None

    def _work_for(self, item: Item, lane: Lane, now: float, ticket: Ticket, index: int) -> Work:
        work = self._in_flight.find(item.key)
        if work is None:
            work = Work(item, lane, now)
            self._in_flight.add(work)
            self._lanes[lane].push(work)
        elif lane is Lane.INTERACTIVE and work.lane is Lane.BULK and work.stage is Stage.QUEUED:
            self._lanes[Lane.BULK].remove(work)
            work.lane, work.arrived = Lane.INTERACTIVE, now
            self._lanes[Lane.INTERACTIVE].push(work)
        work.readers.append((ticket, index))
        work.interest += 1
        return work

    def _settle(self, work: Work) -> None:
        work.stage = Stage.SETTLED
        self._extra_readers -= len(work.readers) - 1
        self._in_flight.remove(work)

    def _is_full(self) -> bool:
        queues = self._lanes.values()
        return (
            sum(queue.tokens for queue in queues) >= self.memory.tokens
            or sum(len(queue) for queue in queues) >= self.limits.max_batch_items
        )

    def _more_is_plausible(self, lane: Lane, now: float) -> bool:
        if self._preparing[lane] > 0:
            return True
        return now - self._answered_at < self.limits.max_wait and self._expected[lane] > 0

    def _run(self, reason: Reason, now: float) -> Run:
        budget = self._fair_share(sum(queue.tokens for queue in self._lanes.values()) + self._running_tokens)
        bulk, queries = self._lanes[Lane.BULK], self._lanes[Lane.INTERACTIVE]
        bulk_budget = min(budget, self.pace.bulk_tokens(self.memory.tokens, now))
        batch = _Batch(self.limits, self.memory)
        head = bulk.peek()
        if head is None or not len(queries):
            self._fill(batch, Lane.INTERACTIVE, budget)
            self._fill(batch, Lane.BULK, bulk_budget)
            self._bulk_credit = max(0.0, self._bulk_credit - batch.tokens)
            return self._started(batch, reason)
        due = max(head.tokens, min(bulk_budget, bulk.tokens))
        if self._bulk_credit >= due:
            self._fill(batch, Lane.BULK, bulk_budget)
            self._bulk_credit -= batch.tokens
            return self._started(batch, reason, funded=True)
        self._fill(batch, Lane.INTERACTIVE, budget)
        overtaken_with = batch.tokens
        self._fill(batch, Lane.BULK, min(budget, batch.tokens + self.pace.company_tokens()))
        self._earn(overtaken_with)
        self._bulk_credit = max(0.0, self._bulk_credit - (batch.tokens - overtaken_with))
        return self._started(batch, reason)

    def _fair_share(self, tokens: int) -> int:
        """What of so many tokens a batch may have so that every other worker gets as much; not so few that batches
        become a waste, and not more than the budget."""
        budget = self.memory.tokens
        if self._workers == 1:
            return budget
        return min(budget, max(-(-tokens // self._workers), budget // 4))

    def _earn(self, tokens: int) -> None:
        share = self.limits.bulk_share
        head = self._lanes[Lane.BULK].peek()
        # Enough that no credit is lost on the way to what one bulk batch costs.
        most = 2 * max(self.memory.tokens, head.tokens if head else 0)
        self._bulk_credit = min(most, self._bulk_credit + tokens * share / (1 - share))

    def _fill(self, batch: _Batch, lane: Lane, budget: int) -> None:
        queue = self._lanes[lane]
        while (work := queue.peek()) is not None and batch.take(work, budget):
            queue.pop()
            work.stage = Stage.RUNNING

    def _started(self, batch: _Batch, reason: Reason, *, funded: bool = False) -> Run:
        self._running_tokens += batch.tokens
        return Run(tuple(batch.works), reason, funded)
