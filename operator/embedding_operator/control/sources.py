"""Where the operator's picture of the cluster comes from: kopf's watch, the followed kinds, and the resync's lists."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import EMBEDDING_SERVICES, PODS, Resource, child_kinds
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.control.queue import Key, Urgency
from embedding_operator.control.watchdog import Deliveries, Silence
from embedding_operator.control.watches import Sinks, watch_for_ever
from embedding_operator.observe.follow import PAGE_SIZE, follow, key_of
from embedding_operator.observe.mirror import Mirror, Scope
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics

log = logging.getLogger(__name__)

FIRST_LIST_RETRY_SECONDS = 5.0
COALESCE_SECONDS = 0.05
"""Events come in bursts: a short wait makes one look of many."""
DELIVERY_SECONDS = 30.0
"""Within this time after a list, the watch must have delivered what was in it."""


def watch_limits(settings: Settings) -> dict[Resource, float]:
    """Every kind that is watched, and how many seconds its watch may be silent. Pure."""
    kinds = (*child_kinds(monitoring=settings.manage_monitoring), PODS)
    limits = dict.fromkeys(kinds, 2.5 * settings.watch_seconds)
    return {EMBEDDING_SERVICES: 2.5 * settings.resync_seconds + DELIVERY_SECONDS, **limits}


class Sources:
    """Fills the mirror, on every replica, so that a new leader starts with a warm picture.

    `enqueue` is told what to look at, in how many seconds, and how urgently. `watch` and `resync` run
    until they are cancelled.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: ClusterClient,
        metrics: Metrics,
        enqueue: Callable[[Key, float, Urgency], None],
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.metrics = metrics
        self.watching = asyncio.Event()
        self.scopes = settings.watch_namespaces or (None,)
        self.limits = watch_limits(settings)
        self.mirror = Mirror(self.limits, self.scopes, clock=time.monotonic, on_news=self.on_news)
        self._enqueue = enqueue
        self._deliveries = Deliveries()
        self._stalled: dict[str | None, asyncio.Event] = defaultdict(asyncio.Event)
        self._checks: set[asyncio.Task[None]] = set()
        for resource in self.limits:
            metrics.watch_age.labels(resource.plural).set_function(partial(self._watch_age, resource.plural))

    @property
    def known(self) -> Collection[Key]:
        """The EmbeddingServices there are."""
        return self.mirror.shelves[EMBEDDING_SERVICES].entries.keys()

    def on_news(self, key: Key) -> None:
        """Something changed about this service."""
        self._enqueue(key, COALESCE_SECONDS, Urgency.NEWS)

    def silence(self, *, answered_ago: float) -> Silence:
        """For how long nothing was heard; `answered_ago` is since when the API server answered anything."""
        limits = {resource.plural: limit for resource, limit in self.limits.items()}
        return Silence(self.mirror.ages(), limits, answered_ago)

    def _watch_age(self, plural: str) -> float:
        return self.mirror.ages()[plural]

    async def watch(self) -> None:
        """The watches, on every replica, so that a new leader starts with a warm picture."""
        log.info("watching EmbeddingServices in %s", ", ".join(scope or "all namespaces" for scope in self.scopes))
        async with asyncio.TaskGroup() as group:
            for namespace in self.scopes:
                scope = self.mirror.scopes[EMBEDDING_SERVICES, namespace]
                sinks = Sinks(partial(self._event, scope), self.watching.set, self._stalled[namespace])
                group.create_task(watch_for_ever(self.cluster, namespace, self.settings.pod_name, sinks), name="kopf")
            for (resource, namespace), scope in self.mirror.scopes.items():
                if resource is EMBEDDING_SERVICES:
                    continue
                following = follow(
                    self.cluster,
                    resource,
                    SERVICE_LABEL,
                    scope,
                    namespace=namespace,
                    watch_seconds=self.settings.watch_seconds,
                    relist_seconds=self.settings.resync_seconds,
                )
                group.create_task(following, name=resource.plural)

    def _event(self, scope: Scope, kind: str | None, live: dict[str, Any]) -> None:
        """What kopf delivered of an EmbeddingService."""
        scope.heard()
        self._deliveries.event(live, gone=kind == "DELETED")
        key = key_of(live)
        known = self.mirror.get(EMBEDDING_SERVICES, *key)
        scope.put(live, gone=kind == "DELETED")
        if known is not None and known["metadata"]["generation"] < live["metadata"]["generation"]:
            self._enqueue(key, COALESCE_SECONDS, Urgency.ASKED)

    async def resync(self) -> None:
        """List all services once per period: whatever a watch lost is found again."""
        while not await self._list_all(spread=1.0):  # noqa: ASYNC110 - what fails is asked again, not waited for
            await asyncio.sleep(FIRST_LIST_RETRY_SECONDS)
        while True:
            await asyncio.sleep(self.settings.resync_seconds * (0.9 + 0.2 * random.random()))  # noqa: S311 - jitter
            await self._list_all(spread=0.8 * self.settings.resync_seconds)

    async def _list_all(self, *, spread: float) -> bool:
        """Enqueue every service there is, spread over a part of the period so that they do not come all at once.

        A namespace that cannot be listed keeps what is known of it, and does not keep the others from being looked at.
        Answers whether all could be listed.
        """
        complete = True
        for namespace in self.scopes:
            scope = self.mirror.scopes[EMBEDDING_SERVICES, namespace]
            listed: dict[Key, str] = {}
            before = self._deliveries.count
            version = ""
            try:
                async for page, moment in self.cluster.pages(EMBEDDING_SERVICES, namespace, size=PAGE_SIZE):
                    version = moment
                    for live in page:
                        scope.put(live)
                        listed[key_of(live)] = str(live["metadata"]["resourceVersion"])
            except ClusterError as error:
                log.warning("cannot list EmbeddingServices: %s", error.message)
                scope.refused(error)
                if error.status:
                    # It answered. What it refuses is no sign of a watch that has gone quiet: the other namespaces are
                    # served, and a restart would change nothing for this one.
                    scope.heard()
                # A namespace that is gone or closed is its watch's business; the rest is worth another try soon.
                complete = complete and error.forbidden
                continue
            scope.keep(listed.keys(), version)
            for key in listed:
                self._enqueue(key, spread * random.random(), Urgency.ROUTINE)  # noqa: S311 - jitter
            self._begin_check(namespace, listed, before)
        if complete:
            self.metrics.last_resync.set(time.time())
        return complete

    def _begin_check(self, namespace: str | None, listed: dict[Key, str], before: int) -> None:
        check = asyncio.create_task(self._check_deliveries(namespace, listed, before))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _check_deliveries(self, namespace: str | None, listed: dict[Key, str], before: int) -> None:
        """Whether kopf delivered what a list has shown; a watch that did not is begun anew."""
        await asyncio.sleep(DELIVERY_SECONDS)
        if self._deliveries.behind(listed, namespace, before):
            self.metrics.watch_restarts.inc()
            self._stalled[namespace].set()
        else:
            self.mirror.scopes[EMBEDDING_SERVICES, namespace].heard()
