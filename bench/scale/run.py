"""One run: a control plane, the operator as its chart installs it, many EmbeddingServices, and changes meanwhile.

The Pods are played (devcluster.player), since only what the operator sees of them matters here.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx

from bench import machine
from bench.scale import probe
from bench.scale.report import Report, Times, quantile
from devcluster import Cluster, ClusterSettings, DevclusterError
from devcluster.control.certificates import KeyPair
from devcluster.node.api import Api, Event, Informer, Key, Object, key_of
from devcluster.player import NODE_LABEL, PODS_PER_NODE

SERVICES = 1000
RESYNC_SECONDS = 20.0
RESYNCS = 3.5
_PROCESS_SECONDS = 10.0
CHANGES = 60
CHART = Path(__file__).parents[2] / "charts" / "embedding-operator"
OPERATOR_NAMESPACE = "embedding-operator-system"
OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:embedding-operator"
NAMESPACES = 10
EDITED = "team-0"
"""Where services are changed while all come up. Requests are counted in the other namespaces."""
PARALLEL = 16
PATIENCE_SECONDS = 60.0
LIMIT_SECONDS = 1800.0
PATH = "/apis/embedding-operator.io/v1alpha1/namespaces/{}/embeddingservices"
CHILDREN = "/api/v1/services?labelSelector=embedding-operator.io/service"
MARK = "bench"
"""A label of the child, by which a change is recognised."""


class ScaleError(Exception):
    """The run could not be brought to its end; the message says where the operator or the cluster stood."""


def service(index: int) -> Object:
    """The EmbeddingService number `index`; one in ten has an autoscaler."""
    spec: dict[str, Any] = {
        "model": {
            "huggingFace": {
                "repository": "sentence-transformers/all-MiniLM-L6-v2",
                "revision": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            }
        },
        "accelerator": {"type": "None"},
        "scheduling": {"nodeSelector": {NODE_LABEL: "true"}},
    }
    if index // NAMESPACES % 10 == 0:
        spec["autoscaling"] = {"minReplicas": 1, "maxReplicas": 2}
    return {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": f"service-{index}", "namespace": f"team-{index % NAMESPACES}"},
        "spec": spec,
    }


@dataclass
class Editor:
    """Changes one service at a time, and sees by a watch when its child is as asked."""

    api: Api
    children: Informer = field(init=False)
    _asked: dict[Key, tuple[str, asyncio.Future[float]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.children = Informer(self.api, CHILDREN)
        self.children.listen(self._changed)

    def _changed(self, event: Event, child: Object) -> None:
        value, seen = self._asked.get(key_of(child), ("", None))
        if seen is not None and not seen.done() and child["metadata"]["labels"].get(MARK) == value:
            seen.set_result(time.monotonic())

    async def change(self, key: Key) -> float:
        """Seconds from the API server's answer to a changed spec to the changed child.

        Raises ScaleError when that takes more than a minute.
        """
        value, seen = uuid.uuid4().hex[:8], asyncio.get_running_loop().create_future()
        self._asked[key] = value, seen
        namespace, name = key
        await self.api.patch(f"{PATH.format(namespace)}/{name}", {"spec": {"service": {"labels": {MARK: value}}}})
        answered = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                moment: float = await seen
                return max(0.0, moment - answered)
        except TimeoutError as error:
            text = f"{namespace}/{name} was changed and not acted on within {PATIENCE_SECONDS:g} s"
            raise ScaleError(text) from error
        finally:
            del self._asked[key]

    async def change_for_ever(self, namespace: str, took: list[float], pause: float) -> None:
        """Change services of a namespace that have children already, one after another, until cancelled."""
        while True:
            there = [key for key in self.children.items if key[0] == namespace]
            if there:
                took.append(await self.change(random.choice(there)))
            await asyncio.sleep(pause)


class Run:
    """One cluster with the operator and played Pods."""

    def __init__(
        self, cluster: Cluster, count: int, *, resync: float, changes: int, say: Callable[[str], None]
    ) -> None:
        self.cluster, self.count, self.resync, self.changes, self.say = cluster, count, resync, changes, say

    def install(self) -> None:
        """The chart, with a resync short enough to see several."""
        environment = [{"name": "EMBEDDING_OPERATOR_RESYNC_SECONDS", "value": str(self.resync)}]
        self.cluster.helm(
            *("upgrade", "--install", "embedding-operator", str(CHART), f"--namespace={OPERATOR_NAMESPACE}"),
            *("--create-namespace", "--wait", "--timeout=120s", f"--set-json=extraEnv={json.dumps(environment)}"),
        )
        (pod,) = self.cluster.objects("pods", OPERATOR_NAMESPACE)
        self.metrics_url = f"http://{pod['status']['podIP']}:8080/metrics"
        self.pid = self._operator_pid()

    def _operator_pid(self) -> int:
        """The operator's process. A Pod that is ready has one, but for the moment in which its container restarts."""
        until = time.monotonic() + _PROCESS_SECONDS
        while (pid := probe.operator_pid(urlsplit(self.cluster.state.server).hostname or "")) is None:
            if time.monotonic() > until:
                raise ScaleError("the operator's process is not found on this machine")
            time.sleep(0.2)
        return pid

    def last_words(self) -> str:
        """What the operator logged at the end, of this and of the run before a restart."""
        scope = ("-n", OPERATOR_NAMESPACE, "deployment/embedding-operator", "--tail=40")
        texts = (self.cluster.kubectl("logs", *scope, *more, check=False).stdout for more in ((), ("--previous",)))
        events = self.cluster.kubectl("events", "-n", OPERATOR_NAMESPACE, check=False).stdout
        return "\n".join([*texts, events])

    async def report(self) -> Report:
        """Everything, in order."""
        hardware, load_before = machine.describe(), machine.load_average()
        pki = self.cluster.directory / "pki"
        agent = KeyPair(pki / "agent.crt", pki / "agent.key")
        async with Api(self.cluster.state.server, pki / "cluster-ca.crt", agent) as self.api:
            editor = Editor(self.api)
            watching = asyncio.create_task(editor.children.run())
            try:
                figures = await self._converge(editor)
                figures |= await self._rest()
                figures["change_steady"] = await self._changes(editor)
            finally:
                watching.cancel()
        now, peak = probe.memory(self.pid)
        return Report(hardware, load_before, self.count, **figures, memory=now, memory_peak=peak)

    async def _converge(self, editor: Editor) -> dict[str, Any]:
        """Create all, and change some of them again and again, until all are Ready."""
        for index in range(NAMESPACES):
            await self.api.create("/api/v1/namespaces", {"metadata": {"name": f"team-{index}"}})
        times, began, limit, started = probe.reconciles(self.metrics_url), time.time(), PARALLEL, time.monotonic()
        took: list[float] = []
        editing = asyncio.create_task(editor.change_for_ever(EDITED, took, 0.5))
        indices = iter(range(self.count))

        async def create() -> None:
            for index in indices:
                body = service(index)
                await self.api.create(PATH.format(body["metadata"]["namespace"]), body)

        await asyncio.gather(*(create() for _ in range(limit)))
        created, applied, ready = time.monotonic() - started, 0.0, 0.0
        self.say(f"{self.count} services created in {created:.1f} s")
        while not ready or len(took) < 2:
            await asyncio.sleep(2)
            counts = await self._conditions()
            now = time.monotonic() - started
            memory, _ = probe.memory(self.pid)
            self.say(f"{now:6.1f} s: {counts['Applied']} applied, {counts['Ready']} ready, {memory} MiB")
            applied = applied or (now if counts["Applied"] == self.count else 0.0)
            ready = ready or (now if counts["Ready"] == self.count else 0.0)
            if editing.done():
                editing.result()
            if now > LIMIT_SECONDS:
                raise ScaleError("not all services became ready within half an hour")
        editing.cancel()
        histogram = probe.since(times, probe.reconciles(self.metrics_url))
        events = probe.between(self._asked(), began, time.time())
        spent = probe.by_name(event for event in events if event["objectRef"].get("namespace") != EDITED)
        counted = self.count - len(range(0, self.count, NAMESPACES))
        return {
            "created": round(created, 1),
            "applied": round(applied, 1),
            "ready": round(ready, 1),
            "requests_per_service": round(spent.total() / counted, 2),
            "requests": {name: round(count / counted, 2) for name, count in spent.most_common()},
            "reconcile_converging": (round(quantile(histogram, 0.5), 4), round(quantile(histogram, 0.95), 4)),
            "change_converging": Times.of(took),
        }

    def _asked(self) -> list[Mapping[str, Any]]:
        """All the operator's requests, by the API server's audit log."""
        return list(self.cluster.audit_events(OPERATOR))

    async def _conditions(self) -> Counter[str]:
        """How many services have each condition."""
        counts: Counter[str] = Counter()
        for index in range(NAMESPACES):
            for item in (await self.api.get(PATH.format(f"team-{index}")))["items"]:
                for condition in (item.get("status") or {}).get("conditions") or ():
                    counts[condition["type"]] += condition["status"] == "True"
        return counts

    async def _rest(self) -> dict[str, Any]:
        """Three resyncs in which nothing changes, after one in which the last Events and counts come."""
        await asyncio.sleep(self.resync)
        seconds = RESYNCS * self.resync
        cpu, times, began = probe.cpu_seconds(self.pid), probe.reconciles(self.metrics_url), time.time()
        await asyncio.sleep(seconds)
        share = (probe.cpu_seconds(self.pid) - cpu) / seconds
        histogram = probe.since(times, probe.reconciles(self.metrics_url))
        events = probe.between(self._asked(), began, time.time())
        writes = [event for event in events if event["verb"] in probe.WRITES]
        return {
            "reconcile_steady": (round(quantile(histogram, 0.5), 4), round(quantile(histogram, 0.95), 4)),
            "steady_seconds": seconds,
            "steady_writes": [f"{event['verb']} {event['requestURI']}" for event in writes],
            "steady_reads": len(events) - len(writes),
            "steady_cpu_percent": round(100 * share, 1),
        }

    async def _changes(self, editor: Editor) -> Times:
        """One changed spec at a time, while everything is being polled."""
        took = []
        for turn in range(self.changes):
            index = turn * max(1, self.count // self.changes) % self.count
            took.append(await editor.change((f"team-{index % NAMESPACES}", f"service-{index}")))
            await asyncio.sleep(0.3)
        return Times.of(took)


@contextmanager
def player(directory: Path, nodes: int) -> Iterator[None]:
    """Played nodes in a process of their own."""
    command = [sys.executable, "-m", "devcluster.player", str(directory), f"--nodes={nodes}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != "playing":
                raise ScaleError("the player did not start")
            yield
        finally:
            process.terminate()


def measure(
    services: int = SERVICES,
    *,
    resync: float = RESYNC_SECONDS,
    changes: int = CHANGES,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """The operator with many EmbeddingServices on a control plane of its own: how long until all serve, what it asks
    of the API server, what it writes when nothing changes, how soon it acts on a change, and its memory.

    `resync` is the operator's, in seconds; `changes` are made one by one when all are ready (two at least). Takes about
    four minutes with 1 000 services on two processors. `say` is told the progress. Raises ScaleError.
    """
    settings = ClusterSettings(name=f"scale-{uuid.uuid4().hex[:6]}", controllers_requests_per_second=500)
    try:
        with Cluster(settings) as cluster, player(cluster.directory, -(-services * 2 // PODS_PER_NODE)):
            run = Run(cluster, services, resync=resync, changes=changes, say=say)
            run.install()
            try:
                return asyncio.run(run.report())
            except (OSError, httpx.HTTPError, aiohttp.ClientError, ScaleError) as error:
                raise ScaleError(f"{error}\n{run.last_words()}") from error
    except DevclusterError as error:
        raise ScaleError(str(error)) from error
