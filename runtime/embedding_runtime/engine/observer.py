"""What the engine reports while it works; telemetry implements it, tests may count with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from embedding_runtime.engine.policy import Run


class Observer(Protocol):
    """Called from the engine's thread and from callers' threads; implementations must be thread-safe and quick."""

    def batch_started(self, run: Run) -> None: ...

    def batch_ended(self, run: Run, seconds: float) -> None:
        """`seconds` is what the batch took itself, without what interrupted it."""

    def waited(self, queue_seconds: Sequence[float]) -> None:
        """For every request that is answered now, how long it waited until its first item was taken up."""

    def shared(self, items: int) -> None:
        """So many inputs of an admitted request were on their way already."""

    def rejected(self, reason: str) -> None: ...

    def cancelled(self, items: int) -> None: ...


class SilentObserver:
    """Observes nothing."""

    def batch_started(self, run: Run) -> None:
        pass

    def batch_ended(self, run: Run, seconds: float) -> None:
        pass

    def waited(self, queue_seconds: Sequence[float]) -> None:
        pass

    def shared(self, items: int) -> None:
        pass

    def rejected(self, reason: str) -> None:
        pass

    def cancelled(self, items: int) -> None:
        pass
