"""How the operator does with many EmbeddingServices: convergence, requests, memory, and how fast it acts on a change.

A real control plane and the operator as its chart installs it; the Pods are played (devcluster.player), since only what
the operator sees of them matters here. `python -m bench.scale` prints a table; `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from devcluster import Cluster, ClusterSettings
from devcluster.control.certificates import KeyPair
from devcluster.node.api import Api, Object
from devcluster.player import NODE_LABEL, PODS_PER_NODE

CHART = Path(__file__).parents[1] / "charts" / "embedding-operator"
OPERATOR_NAMESPACE = "embedding-operator-system"
OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:embedding-operator"
NAMESPACES = 10
PARALLEL = 16
WRITES = ("create", "update", "patch", "delete")
PATH = "/apis/embedding-operator.io/v1alpha1/namespaces/{}/embeddingservices"


@dataclass
class Figures:
    """What was measured; times in seconds, memory in MiB."""

    services: int
    created: float = 0.0
    """Until the last EmbeddingService was accepted by the API server."""
    applied: float = 0.0
    """Until every service had its children."""
    ready: float = 0.0
    """Until every service was Ready."""
    requests_per_service: float = 0.0
    """The operator's requests to the API server from nothing to Ready, watches aside."""
    requests: dict[str, float] = field(default_factory=dict)
    """The same by verb and resource, per service."""
    reconcile_p50: float = 0.0
    reconcile_p95: float = 0.0
    steady_seconds: float = 0.0
    steady_writes: int = 0
    """In that time, with three resyncs in it. Lease renewals aside."""
    steady_reads: int = 0
    steady_cpu_percent: float = 0.0
    """Of one core."""
    change_p50: float = 0.0
    change_p95: float = 0.0
    """From the answer to a changed spec to the changed child, with all services being polled meanwhile."""
    memory: float = 0.0
    memory_peak: float = 0.0


def service(index: int) -> Object:
    """The EmbeddingService number `index`, with an autoscaler on every tenth."""
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
    if index % 10 == 0:
        spec["autoscaling"] = {"minReplicas": 1, "maxReplicas": 2}
    return {
        "apiVersion": "embedding-operator.io/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": f"service-{index}", "namespace": f"team-{index % NAMESPACES}"},
        "spec": spec,
    }


def quantile(figures: Mapping[float, float], share: float) -> float:
    """A quantile of a Prometheus histogram (upper bound -> cumulative count), as PromQL interpolates it. Pure."""
    total = max(figures.values(), default=0.0)
    below, lower = 0.0, 0.0
    for bound, count in sorted(figures.items()):
        if count >= share * total and count > below:
            return (
                lower if bound == float("inf") else lower + (bound - lower) * (share * total - below) / (count - below)
            )
        below, lower = count, bound
    return lower


class Scrape:
    """The operator's own metrics at one moment."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def requests(self) -> Counter[str]:
        """Requests by `verb resource`, watches and leases aside."""
        counts: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == "embedding_operator_api_requests_total":
                verb, resource = sample.labels["verb"], sample.labels["resource"]
                if verb != "watch" and resource != "leases":
                    counts[f"{verb} {resource}"] += int(sample.value)
        return counts

    def reconciles(self) -> dict[float, float]:
        """The histogram of reconcile times."""
        name = "embedding_operator_reconcile_seconds_bucket"
        return {float(sample.labels["le"]): sample.value for sample in self.samples if sample.name == name}


class Bench:
    """One cluster with the operator and played Pods."""

    def __init__(self, cluster: Cluster, count: int, resync: float, log: Any) -> None:
        self.cluster, self.count, self.resync, self.log = cluster, count, resync, log
        self.figures = Figures(services=count)

    def install(self) -> None:
        """The chart, with a resync short enough to see several."""
        environment = [{"name": "EMBEDDING_OPERATOR_RESYNC_SECONDS", "value": str(self.resync)}]
        self.cluster.helm(
            *("upgrade", "--install", "embedding-operator", str(CHART), f"--namespace={OPERATOR_NAMESPACE}"),
            *("--create-namespace", "--wait", "--timeout=120s", f"--set-json=extraEnv={json.dumps(environment)}"),
        )
        (pod,) = self.cluster.objects("pods", OPERATOR_NAMESPACE)
        self.metrics_url = f"http://{pod['status']['podIP']}:8080/metrics"
        self.pid = _operator_pid(self.cluster.state.pid)

    def last_words(self) -> str:
        """What the operator logged at the end, of this and of the run before a restart."""
        scope = ("-n", OPERATOR_NAMESPACE, "deployment/embedding-operator", "--tail=40")
        texts = (self.cluster.kubectl("logs", *scope, *more, check=False).stdout for more in ((), ("--previous",)))
        events = self.cluster.kubectl("events", "-n", OPERATOR_NAMESPACE, check=False).stdout
        return "\n".join([*texts, events])

    def scrape(self) -> Scrape:
        return Scrape(httpx.get(self.metrics_url, timeout=30, trust_env=False).text)

    async def run(self) -> Figures:
        """Everything, in order."""
        pki = self.cluster.directory / "pki"
        agent = KeyPair(pki / "agent.crt", pki / "agent.key")
        async with Api(self.cluster.state.server, pki / "cluster-ca.crt", agent) as api:
            self.api = api
            before = self.scrape().requests()
            await self.converge()
            after = self.scrape()
            spent = {name: count - before[name] for name, count in after.requests().items()}
            self.figures.requests_per_service = round(sum(spent.values()) / self.count, 2)
            self.figures.requests = {
                name: round(count / self.count, 2) for name, count in sorted(spent.items(), key=lambda it: -it[1])
            }
            await self.steady()
            await self.changes()
            histogram = self.scrape().reconciles()
            self.figures.reconcile_p50 = round(quantile(histogram, 0.5), 4)
            self.figures.reconcile_p95 = round(quantile(histogram, 0.95), 4)
            self.figures.memory, self.figures.memory_peak = _memory(self.pid)
        return self.figures

    async def converge(self) -> None:
        """Create all, and wait until all are Ready."""
        for index in range(NAMESPACES):
            await self.api.create("/api/v1/namespaces", {"metadata": {"name": f"team-{index}"}})
        limit, started = asyncio.Semaphore(PARALLEL), time.monotonic()

        async def create(index: int) -> None:
            async with limit:
                body = service(index)
                await self.api.create(PATH.format(body["metadata"]["namespace"]), body)

        await asyncio.gather(*(create(index) for index in range(self.count)))
        self.figures.created = round(time.monotonic() - started, 1)
        self.log(f"{self.count} services created in {self.figures.created} s")
        while not self.figures.ready:
            await asyncio.sleep(2)
            counts = await self._conditions()
            now = round(time.monotonic() - started, 1)
            self.log(f"{now:6.1f} s: {counts['Applied']} applied, {counts['Ready']} ready, {_memory(self.pid)[0]} MiB")
            if not self.figures.applied and counts["Applied"] == self.count:
                self.figures.applied = now
            if counts["Ready"] == self.count:
                self.figures.ready = now
            if now > 1800:
                raise SystemExit("not all services became ready within half an hour")

    async def _conditions(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for index in range(NAMESPACES):
            for item in (await self.api.get(PATH.format(f"team-{index}")))["items"]:
                for condition in (item.get("status") or {}).get("conditions") or ():
                    counts[condition["type"]] += condition["status"] == "True"
        return counts

    async def steady(self) -> None:
        """Three resyncs in which nothing changes."""
        await asyncio.sleep(self.resync)
        self.figures.steady_seconds = seconds = 3.5 * self.resync
        cpu, reads, moment = _cpu_seconds(self.pid), self.scrape().requests(), time.time()
        await asyncio.sleep(seconds)
        self.figures.steady_cpu_percent = round(100 * (_cpu_seconds(self.pid) - cpu) / seconds, 1)
        self.figures.steady_reads = sum((self.scrape().requests() - reads).values())
        written = [event for event in self._writes() if _epoch(event["requestReceivedTimestamp"]) > moment]
        self.figures.steady_writes = len(written)
        for event in written[:10]:
            self.log(f"  wrote {event['verb']} {event['requestURI']}")

    def _writes(self) -> Iterator[Object]:
        for event in self.cluster.audit_events(OPERATOR):
            if event["verb"] in WRITES and event["objectRef"]["resource"] != "leases":
                yield event

    async def changes(self, times: int = 60) -> None:
        """One changed spec at a time; how long until its child is as asked."""
        took = []
        for turn in range(times):
            index = turn * max(1, self.count // times) % self.count
            name, namespace = f"service-{index}", f"team-{index % NAMESPACES}"
            path = f"/api/v1/namespaces/{namespace}/services/{name}"
            value = f"turn-{turn}"
            await self.api.patch(
                f"{PATH.format(namespace)}/{name}", {"spec": {"service": {"labels": {"bench": value}}}}
            )
            started = time.monotonic()
            while (await self.api.get(path))["metadata"]["labels"].get("bench") != value:
                if time.monotonic() - started > 60:
                    raise SystemExit(f"{namespace}/{name} was not acted on within 60 s")
                await asyncio.sleep(0.01)
            took.append(time.monotonic() - started)
            await asyncio.sleep(0.3)
        self.figures.change_p50 = round(statistics.median(took), 3)
        self.figures.change_p95 = round(statistics.quantiles(took, n=20)[-1], 3)


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def _operator_pid(supervisor: int) -> int:
    """The operator's process: the largest of that program below the cluster's supervisor."""
    found = [
        process
        for process in psutil.Process(supervisor).children(recursive=True)
        if any(part.endswith("embedding-operator") for part in process.cmdline())
    ]
    if not found:
        raise SystemExit("the operator's process is not found below the cluster's supervisor")
    return int(max(found, key=lambda process: process.memory_info().rss).pid)


def _memory(pid: int) -> tuple[float, float]:
    """Resident memory now and at its highest, in MiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    now, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return round(now, 1), round(peak, 1)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def player(directory: Path, nodes: int) -> Iterator[None]:
    """Played nodes in a process of their own."""
    command = [sys.executable, "-m", "devcluster.player", str(directory), f"--nodes={nodes}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "playing":
                raise SystemExit("the player did not start")
            yield
        finally:
            process.terminate()


def table(figures: Figures) -> str:
    """The figures for people. Pure."""
    rows = {name: value for name, value in asdict(figures).items() if name != "requests"}
    lines = [f"{name.replace('_', ' '):24} {value}" for name, value in rows.items()]
    return "\n".join([*lines, "requests per service:", *(f"  {name:36} {n}" for name, n in figures.requests.items())])


def main() -> None:
    """Entry point of `python -m bench.scale`."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=1000, help="how many EmbeddingServices [1000]")
    parser.add_argument("--resync", type=float, default=30, help="seconds between two resyncs of the operator [30]")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    settings = ClusterSettings(name="scale", controllers_requests_per_second=500)
    with Cluster(settings) as cluster, player(cluster.directory, -(-arguments.services * 2 // PODS_PER_NODE)):
        bench = Bench(cluster, arguments.services, arguments.resync, log)
        bench.install()
        try:
            figures = asyncio.run(bench.run())
        except (OSError, httpx.HTTPError) as error:
            raise SystemExit(f"the operator did not last: {error}\n{bench.last_words()}") from error
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures), indent=2) + "\n")


if __name__ == "__main__":
    main()
