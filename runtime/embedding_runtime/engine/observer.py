"""What the engine reports while it works; telemetry implements it, tests may count with it."""

from __future__ import annotations

from typing import Protocol

from embedding_runtime.engine.policy import Run


class Observer(Protocol):
    """Called from the engine's thread and from callers' threads; implementations must be thread-safe and quick."""

    def batch_started(self, run: Run, queue_seconds: float) -> None: ...

    def batch_ended(self, run: Run, seconds: float) -> None: ...

    def rejected(self, reason: str) -> None: ...

    def cancelled(self, items: int) -> None: ...


class SilentObserver:
    """Observes nothing."""

    def batch_started(self, run: Run, queue_seconds: float) -> None:
        pass

    def batch_ended(self, run: Run, seconds: float) -> None:
        pass

    def rejected(self, reason: str) -> None:
        pass

    def cancelled(self, items: int) -> None:
        pass
