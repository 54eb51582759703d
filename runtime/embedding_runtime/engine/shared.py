"""What the event loops' side of the engine and the workers that run batches share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from embedding_runtime.engine.health import Health
from embedding_runtime.engine.load import LoadMeter
from embedding_runtime.engine.model import Model
from embedding_runtime.engine.observer import Observer
from embedding_runtime.engine.policy import BatchPolicy
from embedding_runtime.engine.request import Pending
from embedding_runtime.engine.work import Ticket


@dataclass(slots=True)
class Shared:
    """The state of one engine. `changed` guards all of it that changes, and tells workers that it did.

    `workers` is how many run batches side by side, each on one of so many parts of the device unless others are idle;
    `parts_in_use` is how many of these parts batches have now.
    """

    model: Model
    policy: BatchPolicy
    load: LoadMeter
    health: Health
    observer: Observer
    clock: Callable[[], float]
    workers: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: dict[Ticket, Pending] = field(default_factory=dict)
    parts_in_use: int = 0
    testing: bool = False
    stopping: bool = False
    failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether workers are to end: the engine was told to stop, or cannot go on."""
        return self.stopping or self.failure is not None
