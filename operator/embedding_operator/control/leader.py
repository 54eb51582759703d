"""Leader election by a Lease: at most one replica writes at any time, by its own clock.

The rules, after client-go's leaderelection, with a fence added:

- A Lease names its holder and is renewed every `RENEW_SECONDS`. Others take it over only after they have seen no change
  of it for a whole lease duration on their own monotonic clock; clocks of different machines are never compared.
- `may_write` is asked before every write. It is true only while less than the lease duration minus a margin has passed
  since the *start* of the last successful renewal. A process that was stopped, or whose API server hangs, therefore
  stops writing before anybody else may begin.
- Who takes over a Lease that ran out waits `SETTLE_SECONDS` before its first write: what the last leader had sent to an
  API server that hung is served, or dropped, as soon as that goes on, and must not come after writes of the next one.
- The Lease is given up on SIGTERM, so that the next replica need not wait. It says so by a duration of one second, as
  client-go's does: nothing else is taken for having been given up.
- A Lease that is missing, was emptied by somebody, or names us although we did not take it (a process before this one
  did, or a person), tells nothing of who wrote last. Whoever takes it waits a whole lease duration before its first
  write: until then every other fence has closed and every write that passed it has been answered or given up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from embedding_operator.api.kinds import LEASES
from embedding_operator.cluster import ClusterClient, ClusterError, Object

LEASE_SECONDS: Final = 10
RENEW_SECONDS: Final = 2.0
MARGIN_SECONDS: Final = 4.0
"""For writes already on their way when the fence closes: their timeout is no longer than this."""
REQUEST_SECONDS: Final = 3.0
SETTLE_SECONDS: Final = 2.0
RELEASED_SECONDS: Final = 1
"""The duration of a Lease that was given up in order."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LeaseRecord:
    """Somebody's Lease as this replica last saw it change."""

    holder: str
    version: str
    changed_at: float


def _settling(lease: Object | None, *, expired: bool) -> float:
    """Seconds between taking this Lease, which was not ours, and the first write. Pure."""
    if expired:
        return SETTLE_SECONDS
    spec = (lease or {}).get("spec") or {}
    given_up = not spec.get("holderIdentity") and spec.get("leaseDurationSeconds") == RELEASED_SECONDS
    return 0.0 if given_up else float(LEASE_SECONDS)


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Leadership:
    """Takes and keeps one Lease. `cluster` must be a client of its own, with a short timeout and no fence."""

    cluster: ClusterClient
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float]
    on_change: Callable[[bool], Awaitable[None]]
    _renewed_at: float = field(default=float("-inf"))
    _settled_at: float = field(default=float("-inf"))
    _seen: LeaseRecord | None = None
    _held: bool = False
    """Whether this process took the Lease, and has not seen it in other hands, or in none, since."""
    _leading: bool = False

    def may_write(self) -> bool:
        """Whether a write sent now is certain to be this leader's."""
        now = self.clock()
        return now - self._renewed_at < LEASE_SECONDS - MARGIN_SECONDS and now >= self._settled_at

    async def run(self) -> None:
        """Stay in the election until cancelled; then give the Lease up if it is ours."""
        try:
            while True:
                await self._attempt()
                if self._leading != self.may_write():
                    self._leading = self.may_write()
                    log.info(
                        "became the leader" if self._leading else "lost the leadership", extra={"lease": self.name}
                    )
                    await self.on_change(self._leading)
                await asyncio.sleep(self._pause())
        finally:
            await asyncio.shield(self._release())

    def _pause(self) -> float:
        """Seconds until the next renewal, or until the first write where that comes earlier."""
        pause = RENEW_SECONDS * (0.9 + 0.2 * random.random())  # noqa: S311 - jitter
        settling = self._settled_at - self.clock()
        return min(pause, settling) if settling > 0 else pause

    async def _attempt(self) -> None:
        started = self.clock()
        try:
            if await self._acquire_or_renew():
                self._renewed_at = started
        except ClusterError as error:
            if not error.conflict:
                log.warning("cannot renew the Lease: %s", error.message, extra={"lease": self.name})

    async def _acquire_or_renew(self) -> bool:
        lease = await self.cluster.get(LEASES, self.namespace, self.name)
        holder = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
        others = holder not in ("", self.identity)
        if lease is None or holder != self.identity:
            self._held = False
        if lease is not None and others and not self._expired(lease, holder):
            self._renewed_at = float("-inf")
            return False
        if not self._held:
            # Closed until the answer is there: it may come late, or never.
            self._settled_at = float("inf")
        if lease is None:
            await self.cluster.create(LEASES, self._lease(None))
        else:
            await self.cluster.replace(LEASES, self._lease(lease))
        if not self._held:
            self._settled_at = self.clock() + _settling(lease, expired=others)
            self._held = True
        return True

    def _expired(self, lease: Object, holder: str) -> bool:
        """Whether the Lease has not changed for a whole duration while we watched."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or (self._seen.version, self._seen.holder) != (version, holder):
            self._seen = LeaseRecord(holder, version, self.clock())
            return False
        duration = float((lease.get("spec") or {}).get("leaseDurationSeconds") or LEASE_SECONDS)
        return self.clock() - self._seen.changed_at > duration

    def _lease(self, live: Object | None) -> Object:
        spec = dict((live or {}).get("spec") or {})
        metadata = {"name": self.name, "namespace": self.namespace}
        if live is not None:
            metadata = dict(live["metadata"])
        moment = _moment()
        if spec.get("holderIdentity") != self.identity:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if live is not None else 0)
        spec.update(holderIdentity=self.identity, leaseDurationSeconds=LEASE_SECONDS, renewTime=moment)
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        if self.clock() - self._renewed_at >= LEASE_SECONDS - MARGIN_SECONDS:
            return
        self._renewed_at = float("-inf")
        try:
            lease = await self.cluster.get(LEASES, self.namespace, self.name)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"]["holderIdentity"] = ""
                if self.clock() >= self._settled_at:
                    # Otherwise the next one has to wait for the same reason as this one.
                    lease["spec"]["leaseDurationSeconds"] = RELEASED_SECONDS
                lease["spec"]["renewTime"] = _moment()
                await self.cluster.replace(LEASES, lease)
                log.info("gave the Lease up", extra={"lease": self.name})
        except ClusterError as error:
            log.warning("could not give the Lease up: %s", error.message, extra={"lease": self.name})
