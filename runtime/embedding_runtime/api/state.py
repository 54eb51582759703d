"""What the server is doing now, as the health endpoints tell it and the routes obey it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from embedding_runtime.api.errors import unavailable
from embedding_runtime.engine.engine import Engine

STOPPING = "this replica is stopping; try again"


class Phase(StrEnum):
    """Stages of a server's life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True)
class ServiceState:
    """Shared by the loader thread, which reports, and the event loop, which reads."""

    served_name: str
    aliases: tuple[str, ...] = ()
    progress: str = "starting"
    phase: Phase = Phase.LOADING
    engine: Engine | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    # Requests other than those of probes and scrapers: in progress, and ever begun. Written by the event loop alone.
    working: int = 0
    begun: int = 0
    # What makes a request in progress end with 503, where it has no answer yet.
    refusals: set[Callable[[], None]] = field(default_factory=set)
    refusing: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name the model is served under, once each, its id first."""
        return tuple(dict.fromkeys((self.served_name, *self.aliases)))

    def report(self, progress: str) -> None:
        """What the ready endpoint says while the model is not ready."""
        self.progress = progress

    def ready(self, engine: Engine) -> None:
        """The model is proven: serve, unless the process is already on its way out."""
        with self._lock:
            self.engine = engine
            if self.phase is Phase.LOADING:
                self.phase = Phase.READY

    def drain(self) -> None:
        """Readiness falls at once; admitted and newly arriving requests are still answered."""
        with self._lock:
            self.phase = Phase.DRAINING
        if self.engine is not None:
            self.engine.drain()

    def refuse_all(self) -> None:
        """Time is up: whatever is in progress, at any stage, is answered by 503 now. Call it on the event loop."""
        self.refusing = True
        if self.engine is not None:
            self.engine.refuse_all(STOPPING)
        for refuse in tuple(self.refusals):
            refuse()

    def readiness(self) -> tuple[bool, str]:
        """Whether new traffic is welcome, and the words for it."""
        if self.phase is Phase.LOADING:
            return False, self.progress
        if self.engine is None or not self.engine.is_alive():
            return False, "the engine failed; this replica will restart"
        if self.phase is Phase.DRAINING:
            return False, "draining"
        if self.engine.trouble is not None:
            return False, self.engine.trouble
        return True, "ready"

    def is_live(self) -> bool:
        """False when only a restart helps."""
        return self.phase is not Phase.FAILED and (self.engine is None or self.engine.is_alive())

    def require_engine(self) -> Engine:
        """The engine. Raises ApiError 503 while there is none that can answer."""
        if self.engine is None or not self.engine.is_alive():
            raise unavailable(f"the model is not ready: {self.readiness()[1]}", retry_after=5)
        return self.engine
