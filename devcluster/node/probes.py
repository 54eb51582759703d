"""Startup, readiness and liveness probes with kubelet's semantics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from devcluster.node.handlers import HandlerError

Object = dict[str, Any]
Kind = Literal["startup", "readiness", "liveness"]


@dataclass(frozen=True)
class ProbeSettings:
    """A probe's numbers, with the API's defaults; durations in seconds."""

    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3

    @classmethod
    def of(cls, probe: Object) -> ProbeSettings:
        """The numbers of a probe as the API writes them."""
        return cls(
            initial_delay=probe.get("initialDelaySeconds", 0),
            period=probe.get("periodSeconds", 10) or 10,
            timeout=probe.get("timeoutSeconds", 1) or 1,
            success_threshold=probe.get("successThreshold", 1) or 1,
            failure_threshold=probe.get("failureThreshold", 3) or 3,
        )


@dataclass
class Verdict:
    """Counts results; a verdict changes only when enough equal results have followed each other."""

    settings: ProbeSettings
    value: bool | None = None
    _last: bool | None = field(default=None, repr=False)
    _run: int = field(default=0, repr=False)

    def add(self, success: bool) -> bool:
        """Add a result; True when it has just decided the verdict anew (also to what it was)."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        threshold = self.settings.success_threshold if success else self.settings.failure_threshold
        if self._run < threshold:
            return False
        self.value = success
        return True


class Prober:
    """Runs the probes of one run of a container: from the start of its process to its end.

    Readiness and liveness wait for the startup probe; a failed startup or liveness probe ends the run; readiness goes
    on while the Pod is being deleted, the other two do not.
    """

    def __init__(
        self,
        container: Object,
        attempt: Callable[[Object, float], Awaitable[None]],
        *,
        on_started: Callable[[], None],
        on_ready: Callable[[bool], None],
        on_failed: Callable[[Kind], None],
        on_unhealthy: Callable[[Kind, str], None],
        deleting: Callable[[], bool],
    ) -> None:
        self._container, self._attempt = container, attempt
        self._on_started, self._on_ready, self._on_failed = on_started, on_ready, on_failed
        self._on_unhealthy, self._deleting = on_unhealthy, deleting
        self._began = time.monotonic()

    async def run(self) -> None:
        """Probe until cancelled."""
        if "startupProbe" in self._container and not await self._startup(self._container["startupProbe"]):
            return
        self._on_started()
        later = []
        if "readinessProbe" in self._container:
            later.append(self._readiness(self._container["readinessProbe"]))
        else:
            self._on_ready(True)
        if "livenessProbe" in self._container:
            later.append(self._liveness(self._container["livenessProbe"]))
        await asyncio.gather(*later)

    async def _results(self, kind: Kind, probe: Object, settings: ProbeSettings) -> bool:
        try:
            await self._attempt(probe, settings.timeout)
        except HandlerError as problem:
            self._on_unhealthy(kind, str(problem))
            return False
        return True

    async def _delay(self, settings: ProbeSettings) -> None:
        await asyncio.sleep(max(0.0, self._began + settings.initial_delay - time.monotonic()))

    async def _startup(self, probe: Object) -> bool:
        settings = ProbeSettings.of(probe)
        verdict = Verdict(settings)
        await self._delay(settings)
        async for _ in _ticks(settings.period):
            if self._deleting():
                return True
            if verdict.add(await self._results("startup", probe, settings)):
                if not verdict.value and not self._deleting():
                    self._on_failed("startup")
                    return False
                return True
        return False

    async def _readiness(self, probe: Object) -> None:
        settings = ProbeSettings.of(probe)
        verdict = Verdict(settings)
        await self._delay(settings)
        async for _ in _ticks(settings.period):
            before = verdict.value
            if verdict.add(await self._results("readiness", probe, settings)) and verdict.value != before:
                self._on_ready(bool(verdict.value))

    async def _liveness(self, probe: Object) -> None:
        settings = ProbeSettings.of(probe)
        verdict = Verdict(settings)
        await self._delay(settings)
        async for _ in _ticks(settings.period):
            if self._deleting():
                return
            if verdict.add(await self._results("liveness", probe, settings)) and not verdict.value:
                if not self._deleting():
                    self._on_failed("liveness")
                return


class _ticks:  # noqa: N801 - reads as a function
    """A ticker: the first tick at once, later ones every `period`, those missed meanwhile left out."""

    def __init__(self, period: float) -> None:
        self._period, self._next = period, time.monotonic()

    def __aiter__(self) -> _ticks:
        return self

    async def __anext__(self) -> None:
        now = time.monotonic()
        if now < self._next:
            await asyncio.sleep(self._next - now)
        self._next = max(self._next + self._period, time.monotonic())
