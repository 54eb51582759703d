"""What each Pod's runtime last answered, asked again at every look, but no look waits for a Pod that hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.follow import Key
from embedding_operator.observe.pods import may_be_asked, runtime_container
from embedding_operator.observe.snapshot import PodState, Reading

log = logging.getLogger(__name__)

FIRST_PATIENCE: Final = 2.0
"""Seconds that a look waits for a Pod of which nothing is known yet,"""
PATIENCE: Final = 0.5
"""and for one that answered the last time. For one that did not, it does not wait at all."""

FAILURES: Final = 3
"""So many answers in a row must fail to come before a Pod that answered counts as unreachable."""


@dataclass(slots=True)
class _Pod:
    process: tuple[int, datetime | None]
    """Which run of the runtime's container was asked: what it serves changes only with it."""
    reading: Reading | None = None
    asking: asyncio.Task[None] | None = None
    failures: int = 0
    """How often it did not answer since it last did."""

    @property
    def patience(self) -> float:
        if self.failures:
            return 0.0
        return FIRST_PATIENCE if self.reading is None else PATIENCE

    def after(self, answer: Reading) -> Reading:
        """What counts now. A process that answered before may miss a few answers before it counts as unreachable: a
        status that follows every hiccup says less."""
        self.failures = self.failures + 1 if answer.error is not None else 0
        known = self.reading
        if known is None or known.error is not None or not 0 < self.failures < FAILURES:
            return answer
        return known


def _process(pod: PodState) -> tuple[int, datetime | None]:
    container = runtime_container(pod)
    return (0, None) if container is None else (container.restarts, container.running_since)


def tells_something_new(before: Reading | None, after: Reading) -> bool:
    """Whether a look that did not wait for this answer should be repeated. Pure."""
    if before is None:
        return True
    return (before.ready, before.error is None, before.message) != (after.ready, after.error is None, after.message)


@dataclass(slots=True)
class Poller:
    """The newest reading of every Pod. `on_news` is told the service of a Pod that answered after a look went on."""

    endpoints: EndpointReader
    on_news: Callable[[Key], None]
    _pods: dict[Key, dict[str, _Pod]] = field(default_factory=dict)

    async def readings(self, key: Key, pods: Iterable[PodState], *, port: int) -> dict[str, Reading]:
        """Readings by Pod name, of the Pods of this service that run and have an address."""
        asked = {pod.uid: pod for pod in pods if may_be_asked(pod)}
        known = self._pods.get(key, {})
        for uid in known.keys() - asked.keys():
            self._stop(known.pop(uid))
        for uid, pod in asked.items():
            state = known.get(uid)
            if state is None or state.process != _process(pod):
                self._stop(state)
                state = known[uid] = _Pod(_process(pod))
            if state.asking is None:
                state.asking = asyncio.create_task(self._ask(key, state, pod.ip or "", port=port, tls=pod.tls))
        if known:
            self._pods[key] = known
        else:
            self._pods.pop(key, None)
        await self._wait(known.values())
        return {pod.name: reading for uid, pod in asked.items() if (reading := known[uid].reading) is not None}

    async def _wait(self, pods: Iterable[_Pod]) -> None:
        """Wait for the answers under way, for each no longer than it deserves."""
        waits = [(pod.patience, pod.asking) for pod in pods if pod.asking is not None]
        started = asyncio.get_running_loop().time()
        for patience in sorted({patience for patience, _ in waits if patience}):
            left = started + patience - asyncio.get_running_loop().time()
            await asyncio.wait([task for own, task in waits if own == patience], timeout=max(0.0, left))

    async def _ask(self, key: Key, pod: _Pod, ip: str, *, port: int, tls: bool) -> None:
        before, patience, started = pod.reading, pod.patience, asyncio.get_running_loop().time()
        # A process publishes one manifest for as long as it runs.
        manifest = before.manifest if before is not None else None
        troubled = pod.failures > 0
        try:
            reading = await self.endpoints.read(ip, port=port, tls=tls, manifest=manifest is None, troubled=troubled)
        except Exception as error:
            # A Pod may answer anything: what that breaks is its own business, and ends no look.
            log.exception("cannot read the Pod at %s", ip, extra={"service": "/".join(key)})
            reading = Reading(error=f"its answer cannot be read: {error}")
        finally:
            pod.asking = None
        if reading.ready and reading.manifest is None:
            reading = replace(reading, manifest=manifest)
        pod.reading = reading = pod.after(reading)
        if asyncio.get_running_loop().time() - started >= patience and tells_something_new(before, reading):
            self.on_news(key)

    @staticmethod
    def _stop(pod: _Pod | None) -> None:
        if pod is not None and pod.asking is not None:
            pod.asking.cancel()

    def forget(self, key: Key) -> None:
        """The service is gone."""
        for pod in self._pods.pop(key, {}).values():
            self._stop(pod)

    def clear(self) -> None:
        """Nobody looks at anything any more."""
        for key in list(self._pods):
            self.forget(key)

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = [pod.asking for pods in self._pods.values() for pod in pods.values() if pod.asking is not None]
        self._pods.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
