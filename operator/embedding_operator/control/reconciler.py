"""One reconcile: observe, decide and render, act, judge, write the status. Level-triggered: it is given only a name."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedding_operator.act import events
from embedding_operator.act.apply import Applier
from embedding_operator.act.events import Notice, Throttle
from embedding_operator.act.outcome import Change, Outcome, after
from embedding_operator.act.repairs import Repairs
from embedding_operator.act.status import write_status
from embedding_operator.api import EmbeddingService, parse
from embedding_operator.api.constants import RUNTIME_PORT
from embedding_operator.api.kinds import BY_KIND, EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient, ClusterError, NotLeading
from embedding_operator.control.consequences import consequence, retry_delay
from embedding_operator.control.plan import OperatorIdentity, Plan, plan
from embedding_operator.control.queue import Key, WorkQueue
from embedding_operator.errors import InvalidSpec, OperatorError, Waiting
from embedding_operator.judge.conditions import NOT_OBSERVED, Truth, Verdict
from embedding_operator.judge.reasons import Reason
from embedding_operator.judge.status import Judgement, Memory, judge
from embedding_operator.observe.observer import Interest, Observer
from embedding_operator.observe.snapshot import Snapshot
from embedding_operator.render import inventory
from embedding_operator.telemetry import Metrics

log = logging.getLogger(__name__)

APPLIED = Verdict(Truth.TRUE, Reason.APPLIED, "every child is as rendered")


GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a service is looked at without being told to, in seconds."""

    poll: float
    """When it is ready and settled."""
    progress: float
    """While something is on its way."""


def accepted_verdict(service: EmbeddingService) -> Verdict:
    """A spec that is understood; a model that can change by itself is pointed out. Pure."""
    source = service.spec.model.hugging_face if service.spec.model is not None else None
    if source is not None and not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        revision = source.revision or "of the default branch"
        text = f"revision {revision} is no commit: the vectors can change at any restart; pin a 40-digit one"
        return Verdict(Truth.TRUE, Reason.REVISION_NOT_PINNED, text)
    return Verdict(Truth.TRUE, Reason.ACCEPTED, "the spec is understood")


def interest_of(name: str, *, monitoring: bool) -> Interest:
    """What has to be read for the service of this name. What was asked for before may run still: the spec is not asked.
    Pure."""
    children = [(kind, child) for kind, child in inventory(name) if monitoring or not kind.monitoring]
    return Interest(children=tuple(children), port=RUNTIME_PORT)


def forbidden(snapshot: Snapshot) -> OperatorError | None:
    """What follows from kinds that may not be read; None when all could be. Pure."""
    if not snapshot.unread:
        return None
    words = "; ".join(f"{kind}: {said}" for (_, kind), said in snapshot.unread.items())
    return OperatorError(f"cannot be read, and is left as it is: {words}", reason=Reason.FORBIDDEN.value)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look came to, before anything is done."""

    service: EmbeddingService | None
    """None when the spec could not be understood."""
    snapshot: Snapshot
    plan: Plan | None
    """None when nothing may be done."""
    accepted: Verdict
    error: OperatorError | None
    """What stands in the way already: a spec that is not understood, a kind that may not be read."""


@dataclass(slots=True)
class Reconciler:
    """Brings one service at a time to what its spec asks for. Its methods never raise, but on cancellation."""

    cluster: ClusterClient
    observer: Observer
    applier: Applier
    operator: OperatorIdentity
    queue: WorkQueue
    metrics: Metrics
    rhythm: Rhythm
    instance: str
    now: Callable[[], datetime]
    manage_monitoring: bool = False
    throttle: Throttle = field(default_factory=Throttle)
    repairs: Repairs = field(default_factory=Repairs)
    _memory: dict[Key, Memory] = field(default_factory=dict)
    _waits: dict[Key, tuple[float, Verdict | None]] = field(default_factory=dict)
    """By service that is not settled: the last wait, and the verdict it began with."""

    async def handle(self, key: Key) -> None:
        """Reconcile `key` and tell the queue what comes next."""
        started = time.monotonic()
        try:
            result, again, failed = await self._reconcile(key)
        except (ClusterError, NotLeading) as error:
            result, again, failed = "error", retry_delay(error), True
            log.warning("cannot reconcile: %s", error, extra={"service": "/".join(key)})
        except Exception:
            result, again, failed = "error", None, True
            log.exception("reconcile failed", extra={"service": "/".join(key)})
        self.metrics.reconciles.labels(result).inc()
        self.metrics.reconcile_seconds.observe(time.monotonic() - started)
        if failed:
            self.queue.failed(key, again)
        else:
            self.queue.done(key, again)

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._memory.pop(key, None)
        self._waits.pop(key, None)
        self.applier.forget(key)
        self.throttle.forget(key)
        self.repairs.forget(key)
        self.observer.poller.forget(key)
        self.queue.forget(key)
        try:
            self.metrics.service_ready.remove(*key)
        except KeyError:
            return

    def clear(self) -> None:
        """Somebody else looks from now on: what is remembered here would only grow old."""
        self._memory.clear()
        self._waits.clear()
        self.applier.clear()
        self.throttle.clear()
        self.repairs.clear()
        self.observer.poller.clear()
        self.metrics.service_ready.clear()

    async def _reconcile(self, key: Key) -> tuple[str, float | None, bool]:
        """(result for the metric, seconds until the next look, whether it failed)."""
        mirrored = self.observer.mirror.fresh(key[0])
        sight = await self._look(key, live=not mirrored)
        if mirrored and (sight is None or self._has_to_act(sight)):
            # The mirror may be behind. Whoever wants to write reads first what is there.
            sight = await self._look(key, live=True)
        if sight is None:
            # Owner references let the garbage collector remove the children; there is nothing to do here.
            self.forget(key)
            return "gone", None, False
        service, snapshot = sight.service, sight.snapshot
        outcome = Outcome()
        if sight.plan is not None:
            outcome = await self._act(key, sight.plan, snapshot)
            snapshot = after(snapshot, outcome.changes)
        errors = [error for error in (*outcome.failures, sight.error) if error is not None]
        error = Outcome((), tuple(errors)).failure
        blocked = consequence(error) if error is not None else None
        applied = APPLIED if blocked is None else NOT_OBSERVED if isinstance(error, InvalidSpec) else blocked.verdict
        if blocked is not None and blocked.failed and not self.queue.failures(key) and snapshot.resource.get("status"):
            # One failure is no news: what is tried again in a second mostly passes, and no one has to be woken for it.
            log.info("%s; trying again", blocked.verdict.message, extra={"service": "/".join(key)})
            await self._post(key, snapshot, events.of_changes(outcome.changes))
            return blocked.result, blocked.retry_after, True
        memory = self._memory.get(key, Memory())
        judgement = judge(snapshot, service, accepted=sight.accepted, applied=applied, memory=memory)
        await self._report(key, snapshot, judgement, outcome.changes)
        if blocked is not None and blocked.failed:
            return blocked.result, blocked.retry_after, True
        if blocked is not None:
            # Nothing more can be done, but what runs goes on, and is told as truly as before.
            waits = (self._next_look(key, judgement), blocked.retry_after)
            return blocked.result, min(wait for wait in waits if wait is not None), False
        if outcome.changes:
            return "changed", min(1.0, self.rhythm.progress), False
        return "unchanged", self._next_look(key, judgement), False

    async def _look(self, key: Key, *, live: bool) -> Sight | None:
        """Observe one service and plan its children; None when it is gone or going."""
        resource = await self.observer.resource(*key, live=live)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None
        service: EmbeddingService | None = None
        error: OperatorError | None = None
        try:
            service = parse(resource)
            accepted = accepted_verdict(service)
        except InvalidSpec as invalid:
            error = invalid
            accepted = consequence(invalid).verdict
        interest = interest_of(key[1], monitoring=self.manage_monitoring)
        snapshot = await self.observer.snapshot(resource, interest, live=live)
        error = error or forbidden(snapshot)
        # Where not everything can be read, what runs is kept as it should be, but nothing is begun.
        may_act = service is not None and (error is None or snapshot.deployment is not None)
        wanted = plan(service, snapshot, self.operator) if service is not None and may_act else None
        return Sight(service, snapshot, wanted, accepted, error)

    def _has_to_act(self, sight: Sight) -> bool:
        wanted = sight.plan
        return wanted is not None and self.applier.is_needed(
            wanted.children, sight.snapshot, hand_over=wanted.hand_over
        )

    async def _act(self, key: Key, wanted: Plan, snapshot: Snapshot) -> Outcome:
        hold = self.repairs.held(key, snapshot.generation, snapshot.now)
        if hold is not None and self.applier.is_needed(wanted.children, snapshot, hand_over=wanted.hand_over):
            return Outcome((), (Waiting(hold.message, reason=Reason.RETRYING.value, seconds=hold.seconds),))
        outcome = await self.applier.apply(wanted.children, snapshot, hand_over=wanted.hand_over)
        self.repairs.note(key, snapshot.generation, outcome.changes, snapshot.now)
        for change in outcome.changes:
            if change.live is not None:
                resource = BY_KIND[change.live["apiVersion"], change.live["kind"]]
                self.observer.mirror.learn(resource, change.live)
            log.info(
                "%s %s/%s",
                change.verb,
                change.kind,
                change.name,
                extra={"service": f"{snapshot.namespace}/{snapshot.name}", "fields": ",".join(change.fields[:8])},
            )
        return outcome

    async def _report(
        self,
        key: Key,
        snapshot: Snapshot,
        judgement: Judgement,
        changes: tuple[Change, ...],
    ) -> None:
        resource = snapshot.resource
        before: Mapping[str, Any] = resource.get("status") or {}
        status = judgement.status
        written = await write_status(self.cluster, resource, status)
        if written is not None:
            self.observer.mirror.learn(EMBEDDING_SERVICES, written)
        ready = judgement.verdicts["Ready"]
        self.metrics.service_ready.labels(*key).set(1 if ready.holds else 0)
        memory = self._memory.get(key, Memory())
        readings = {name: reading.metrics for name, reading in snapshot.readings.items() if reading.metrics is not None}
        new_load = written is not None and status.get("load") != before.get("load")
        load_written = snapshot.now if new_load else memory.load_written_at
        self._memory[key] = Memory(readings, load_written)
        notices = events.of_changes(changes) + events.transitions(before.get("conditions") or (), status["conditions"])
        for notice in notices:
            if notice.action == "Reconcile":
                log.info("%s: %s", notice.reason, notice.message, extra={"service": "/".join(key)})
        await self._post(key, snapshot, notices)

    async def _post(self, key: Key, snapshot: Snapshot, notices: Iterable[Notice]) -> None:
        admitted = self.throttle.admit(key, notices, snapshot.now)
        await events.post(self.cluster, snapshot.resource, admitted, instance=self.instance, now=snapshot.now)

    def _next_look(self, key: Key, judgement: Judgement) -> float:
        """Seconds until the next look that nobody asks for. While nothing moves, looks become rare: the watches tell
        of every change in the cluster, only a Pod's own progress has to be asked for."""
        if judgement.settled:
            self._waits.pop(key, None)
            seconds = self.rhythm.poll
        else:
            ready = judgement.verdicts["Ready"]
            seconds, before = self._waits.get(key, (self.rhythm.progress, None))
            moved = before != ready
            seconds = (
                self.rhythm.progress if moved else min(seconds * GROWTH, max(self.rhythm.poll, self.rhythm.progress))
            )
            self._waits[key] = (seconds, ready)
        return seconds * (0.8 + 0.4 * random.random())  # noqa: S311 - jitter
