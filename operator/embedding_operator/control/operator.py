"""Wiring: one process that watches, elects a leader, reconciles and serves its own metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from kubernetes.aio.client import ApiClient

from embedding_operator.act.apply import Applier
from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient, ClusterError, load_configuration
from embedding_operator.control.leader import MARGIN_SECONDS, REQUEST_SECONDS, Leadership
from embedding_operator.control.plan import OperatorIdentity
from embedding_operator.control.queue import Key, WorkQueue
from embedding_operator.control.reconciler import Reconciler, Rhythm
from embedding_operator.control.server import Health, serve
from embedding_operator.control.watches import Sinks, watch_for_ever
from embedding_operator.judge.decisions import RuntimeDefaults
from embedding_operator.metrics_api.service import Listening, MetricsApi
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.observer import Observer
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics

log = logging.getLogger(__name__)

STUCK_RECONCILE_SECONDS = 120.0
FIRST_LIST_RETRY_SECONDS = 5.0
POD_LABELS = {"app.kubernetes.io/part-of": "embedding-operator", "app.kubernetes.io/component": "operator"}
"""What the chart puts on the operator's Pods whatever its values; a NetworkPolicy of a service admits them by it."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def identity_of_operator(settings: Settings) -> OperatorIdentity:
    """What rendering needs to know of an operator with these settings."""
    defaults = RuntimeDefaults(
        settings.runtime_image,
        settings.runtime_image_pull_policy or "IfNotPresent",
        settings.runtime_image_pull_secrets,
    )
    return OperatorIdentity(settings.namespace, POD_LABELS, defaults)


def _metrics_api(settings: Settings, cluster: ClusterClient) -> MetricsApi | None:
    if not settings.metrics_api_enabled:
        return None
    listening = Listening(settings.host, settings.metrics_api_port, settings.metrics_api_cert_dir)
    return MetricsApi(cluster, listening, utc_now, settings.metrics_api_read_seconds)


class Operator:
    """One replica of the operator. `run` returns after SIGTERM or SIGINT, with the Lease given up."""

    def __init__(self, settings: Settings, api: ApiClient, lease_api: ApiClient) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.queue = WorkQueue(time.monotonic)
        self.known: set[Key] = set()
        self._leading = False
        self._watching = asyncio.Event()
        self._stopping = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._first_list: asyncio.Task[None] | None = None
        lease_cluster = ClusterClient(lease_api, count=self.metrics.count_api_request, timeout=REQUEST_SECONDS)
        self.leadership = Leadership(
            lease_cluster,
            settings.namespace,
            settings.lease_name,
            settings.pod_name,
            time.monotonic,
            self._leadership_changed,
        )
        self.cluster = ClusterClient(
            api,
            may_write=self.leadership.may_write,
            count=self.metrics.count_api_request,
            write_timeout=MARGIN_SECONDS,
        )
        self.endpoints = EndpointReader(utc_now)
        self.reconciler = Reconciler(
            cluster=self.cluster,
            observer=Observer(self.cluster, self.endpoints, utc_now),
            applier=Applier(self.cluster),
            operator=identity_of_operator(settings),
            queue=self.queue,
            metrics=self.metrics,
            rhythm=Rhythm(settings.poll_seconds, settings.progress_seconds),
            instance=settings.pod_name,
            now=utc_now,
            manage_monitoring=settings.manage_monitoring,
        )
        self.metrics_api = _metrics_api(settings, self.cluster)
        self.metrics.queue_depth.set_function(lambda: self.queue.depth)
        self.metrics.queue_oldest_seconds.set_function(lambda: self.queue.oldest_seconds)
        self.metrics.leader.set_function(lambda: 1.0 if self.leadership.may_write() else 0.0)
        self.metrics.services.set_function(lambda: len(self.known))

    async def run(self) -> None:
        self._stop_on_signals()
        health = Health(alive=self._alive, ready=self._not_ready)
        server = await serve(self.metrics, health, host=self.settings.host, port=self.settings.port)
        tasks = [
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._resync(), name="resync"),
            asyncio.create_task(self.leadership.run(), name="leadership"),
            asyncio.create_task(self._stopping.wait(), name="stop"),
        ]
        if self.metrics_api is not None:
            tasks.append(asyncio.create_task(self.metrics_api.run(), name="metrics API"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.get_name() != "stop":
                    log.error("the %s task ended", task.get_name(), exc_info=task.exception())
                    raise SystemExit(1)
            log.info("stopping")
        finally:
            await self._stop_workers()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.endpoints.aclose()
            await server.cleanup()

    def _stop_on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)

    # What to look at ------------------------------------------------------------------------------------------------

    def _enqueue(self, key: Key, delay: float) -> None:
        if self._leading:
            self.queue.add(key, delay)

    def _heard(self, moment: float) -> None:
        self.metrics.last_event.set(moment)

    async def _watch(self) -> None:
        """The watches, on every replica, so that a new leader starts with a warm picture."""
        sinks = Sinks(self._enqueue, self.known.add, self.known.discard, self._heard, self._watching.set)
        scopes = self.settings.watch_namespaces or (None,)
        log.info("watching EmbeddingServices in %s", ", ".join(scope or "all namespaces" for scope in scopes))
        async with asyncio.TaskGroup() as group:
            for scope in scopes:
                group.create_task(watch_for_ever(self.cluster, scope, self.settings.pod_name, sinks))

    async def _resync(self) -> None:
        """List all services once per period: whatever a watch lost is found again."""
        while True:
            await asyncio.sleep(self.settings.resync_seconds * (0.9 + 0.2 * random.random()))  # noqa: S311 - jitter
            if self._leading:
                await self._list_all()

    async def _first_list_of_all(self) -> None:
        """What a new leader begins with; repeated until it succeeded everywhere."""
        while not await self._list_all(spread=1.0):  # noqa: ASYNC110 - what fails is asked again, not waited for
            await asyncio.sleep(FIRST_LIST_RETRY_SECONDS)

    async def _list_all(self, spread: float | None = None) -> bool:
        """Enqueue every service there is, spread over a part of the period so that they do not come all at once.

        A namespace that cannot be listed keeps what is known of it, and does not keep the others from being looked at.
        Answers whether all could be listed.
        """
        window = self.settings.resync_seconds / 4 if spread is None else spread
        complete = True
        for namespace in self.settings.watch_namespaces or (None,):
            try:
                items, _ = await self.cluster.list(EMBEDDING_SERVICES, namespace)
            except ClusterError as error:
                log.warning("cannot list EmbeddingServices: %s", error.message)
                # A namespace that is gone or closed is its watch's business; the rest is worth another try soon.
                complete = complete and error.forbidden
                continue
            found = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
            missing = {key for key in self.known - found if namespace in (None, key[0])}
            self.known -= missing
            self.known |= found
            for key in found | missing:
                self._enqueue(key, window * random.random())  # noqa: S311 - jitter
        if complete:
            self.metrics.last_resync.set(time.time())
        return complete

    # Who works ------------------------------------------------------------------------------------------------------

    async def _leadership_changed(self, leading: bool) -> None:
        self._leading = leading
        if leading:
            workers = range(self.settings.workers)
            self._workers = [asyncio.create_task(self.queue.work(self.reconciler.handle)) for _ in workers]
            # Beside the election, not in it: a list that takes long must not delay the renewal of the Lease.
            self._first_list = asyncio.create_task(self._first_list_of_all())
        else:
            await self._stop_workers()
            self.queue.clear()
            self.metrics.service_ready.clear()

    async def _stop_workers(self) -> None:
        tasks = [*self._workers, *([self._first_list] if self._first_list is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers, self._first_list = [], None

    def _not_ready(self) -> str | None:
        if not self._watching.is_set():
            return "not watching yet"
        return self.metrics_api.fault() if self.metrics_api is not None else None

    def _alive(self) -> str | None:
        dead = [worker for worker in self._workers if worker.done()]
        if dead:
            return f"{len(dead)} of {len(self._workers)} workers ended"
        if not self._leading:
            return None
        for what, seconds in (
            ("due", self.queue.oldest_seconds),
            ("being looked at", self.queue.longest_running_seconds),
        ):
            if seconds > STUCK_RECONCILE_SECONDS:
                return f"a service has been {what} for {seconds:.0f} s"
        return None


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Operator]:
    """An operator with its two connections: one for the work, one for the Lease alone."""
    api, lease_api = ApiClient(await load_configuration()), ApiClient(await load_configuration())
    try:
        yield Operator(settings, api, lease_api)
    finally:
        await api.close()
        await lease_api.close()
