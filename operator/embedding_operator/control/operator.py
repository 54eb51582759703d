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
from embedding_operator.cluster import ClusterClient, load_configuration, user_agent
from embedding_operator.control.leader import MARGIN_SECONDS, REQUEST_SECONDS, Leadership
from embedding_operator.control.plan import OperatorIdentity
from embedding_operator.control.queue import Key, Urgency, WorkQueue
from embedding_operator.control.reconciler import Reconciler, Rhythm
from embedding_operator.control.server import Health, serve
from embedding_operator.control.sources import Sources
from embedding_operator.control.watchdog import Silence
from embedding_operator.errors import CannotListen
from embedding_operator.judge.decisions import RuntimeDefaults
from embedding_operator.metrics_api.service import Listening, MetricsApi
from embedding_operator.observe.endpoints import EndpointReader
from embedding_operator.observe.mirror import Mirror
from embedding_operator.observe.observer import Observer
from embedding_operator.observe.polling import Poller
from embedding_operator.settings import Settings
from embedding_operator.telemetry import Metrics

log = logging.getLogger(__name__)

STUCK_RECONCILE_SECONDS = 120.0
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


def _metrics_api(settings: Settings, cluster: ClusterClient, mirror: Mirror) -> MetricsApi | None:
    if not settings.metrics_api_enabled:
        return None
    listening = Listening(settings.host, settings.metrics_api_port, settings.metrics_api_cert_dir)
    return MetricsApi(cluster, mirror, listening, utc_now, settings.metrics_api_read_seconds)


class Operator:
    """One replica of the operator. `run` returns after SIGTERM or SIGINT, with the Lease given up.

    It raises CannotListen when a port is taken, and SystemExit when a part of it ended that should not.
    """

    def __init__(self, settings: Settings, api: ApiClient, lease_api: ApiClient, watch_api: ApiClient) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.queue = WorkQueue(time.monotonic)
        self._answered_at = time.monotonic()
        self._leading = False
        self._stopping = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        lease_cluster = ClusterClient(
            lease_api, count=self._count, timeout=REQUEST_SECONDS, write_timeout=REQUEST_SECONDS
        )
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
            count=self._count,
            write_timeout=MARGIN_SECONDS,
        )
        self.watch_cluster = ClusterClient(watch_api, may_write=lambda: False, count=self._count)
        self.sources = Sources(settings, self.watch_cluster, self.metrics, self._enqueue)
        self.endpoints = EndpointReader(utc_now)
        self.poller = Poller(self.endpoints, on_news=self.sources.on_news)
        self.reconciler = Reconciler(
            cluster=self.cluster,
            observer=Observer(self.cluster, self.sources.mirror, self.poller, utc_now),
            applier=Applier(self.cluster),
            operator=identity_of_operator(settings),
            queue=self.queue,
            metrics=self.metrics,
            rhythm=Rhythm(settings.poll_seconds, settings.progress_seconds),
            instance=settings.pod_name,
            now=utc_now,
            manage_monitoring=settings.manage_monitoring,
        )
        self.metrics_api = _metrics_api(settings, self.watch_cluster, self.sources.mirror)
        self.metrics.queue_depth.set_function(lambda: self.queue.depth)
        self.metrics.queue_oldest_seconds.set_function(lambda: self.queue.oldest_seconds)
        self.metrics.leader.set_function(lambda: 1.0 if self.leadership.may_write() else 0.0)
        self.metrics.services.set_function(lambda: len(self.sources.known))

    async def run(self) -> None:
        self._stop_on_signals()
        health = Health(alive=self._alive, ready=self._not_ready)
        server = await serve(self.metrics, health, host=self.settings.host, port=self.settings.port)
        tasks = [
            asyncio.create_task(self.sources.watch(), name="watch"),
            asyncio.create_task(self.sources.resync(), name="resync"),
            asyncio.create_task(self.leadership.run(), name="leadership"),
            asyncio.create_task(self._stopping.wait(), name="stop"),
        ]
        if self.metrics_api is not None:
            tasks.append(asyncio.create_task(self.metrics_api.run(), name="metrics API"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.get_name() != "stop":
                    if isinstance(error := task.exception(), CannotListen):
                        raise error
                    log.error("the %s task ended", task.get_name(), exc_info=task.exception())
                    raise SystemExit(1)
            log.info("stopping")
        finally:
            await self._stop_workers()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.poller.aclose()
            await self.endpoints.aclose()
            await server.cleanup()

    def _stop_on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)

    # What to look at ------------------------------------------------------------------------------------------------

    def _count(self, verb: str, resource: str, status: int) -> None:
        if status:
            self._answered_at = time.monotonic()
        self.metrics.count_api_request(verb, resource, status)

    def _enqueue(self, key: Key, delay: float, urgency: Urgency) -> None:
        if self._leading:
            self.queue.add(key, delay, urgency)

    # Who works ------------------------------------------------------------------------------------------------------

    async def _leadership_changed(self, leading: bool) -> None:
        self._leading = leading
        if leading:
            workers = range(self.settings.workers)
            self._workers = [asyncio.create_task(self.queue.work(self.reconciler.handle)) for _ in workers]
            for key in self.sources.known:
                self._enqueue(key, random.random(), Urgency.ROUTINE)  # noqa: S311 - jitter
        else:
            await self._stop_workers()
            self.queue.clear()
            self.reconciler.clear()

    async def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers = []

    def _silence(self) -> Silence:
        return self.sources.silence(answered_ago=time.monotonic() - self._answered_at)

    def _not_ready(self) -> str | None:
        if not self.sources.watching.is_set():
            return "not watching yet"
        return self._silence().not_ready() or (self.metrics_api.fault() if self.metrics_api is not None else None)

    def _alive(self) -> str | None:
        dead = [worker for worker in self._workers if worker.done()]
        if dead:
            return f"{len(dead)} of {len(self._workers)} workers ended"
        if fault := self._silence().not_alive():
            return fault
        if not self._leading:
            return None
        for what, seconds in (
            ("due, with no worker taking anything,", self.queue.stuck_seconds),
            ("being looked at", self.queue.longest_running_seconds),
        ):
            if seconds > STUCK_RECONCILE_SECONDS:
                return f"a service has been {what} for {seconds:.0f} s"
        return None


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Operator]:
    """An operator with its three connections: one for the work, one for the Lease alone, and one for watches, of which
    there are as many as namespaces and kinds."""
    watching = await load_configuration()
    watching.connection_pool_maxsize = 0  # no limit
    apis = [ApiClient(await load_configuration()), ApiClient(await load_configuration()), ApiClient(watching)]
    for api in apis:
        # In the API server's audit log every request names the replica that made it.
        api.user_agent = user_agent(settings.pod_name)
    try:
        yield Operator(settings, *apis)
    finally:
        for api in apis:
            await api.close()
