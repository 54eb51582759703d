"""What queues: requests and the sequences they need, each computed once however many requests share it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from embedding_runtime.engine.model import Item


class Lane(StrEnum):
    """Who waits: a person for one text, or a pipeline for thousands."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Stage(Enum):
    """Where a piece of work is."""

    QUEUED = auto()
    RUNNING = auto()
    SETTLED = auto()


@dataclass(slots=True, eq=False)
class Work:
    """One sequence to compute, and for whom: `readers` are (request, index of its input).

    `interest` counts the readers that still wait; `arrived` is when it came to its lane.
    """

    item: Item
    lane: Lane
    arrived: float
    readers: list[tuple[Ticket, int]] = field(default_factory=list)
    interest: int = 0
    stage: Stage = Stage.QUEUED

    @property
    def tokens(self) -> int:
        return self.item.tokens


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request: the work it waits for, by input, and how many of its inputs are not settled yet.

    `new_tokens` is what it added to the queue; `shared_items` of its inputs were already on their way.
    """

    lane: Lane
    arrived: float
    works: tuple[Work, ...] = ()
    unsettled: int = 0
    new_tokens: int = 0
    shared_items: int = 0
    cancelled: bool = False


class InFlight:
    """Finds work that is queued or running by what identifies its result, so that nothing is computed twice at once.

    Holds one entry per unsettled work that has a key, and so no more than the queue and one batch.
    """

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Work] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: Hashable | None) -> Work | None:
        return None if key is None else self._by_key.get(key)

    def add(self, work: Work) -> None:
        if work.item.key is not None:
            self._by_key[work.item.key] = work

    def remove(self, work: Work) -> None:
        """Nobody can join this work any more."""
        if work.item.key is not None and self._by_key.get(work.item.key) is work:
            del self._by_key[work.item.key]

    def unique(self, items: Iterable[Item]) -> list[Item]:
        """The items that nothing in flight, nor an earlier one of them, already covers."""
        seen: set[Hashable] = set()
        needed = []
        for item in items:
            if item.key is not None:
                if item.key in seen or item.key in self._by_key:
                    continue
                seen.add(item.key)
            needed.append(item)
        return needed
