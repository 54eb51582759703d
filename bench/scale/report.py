"""What a run with many EmbeddingServices came to, beside its targets. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.machine import Machine
from bench.table import Row, text_table

MEMORY_MEBIBYTES = 256e6 / 2**20
REACTION_SECONDS = 1.0
_MARKS = {True: "pass", False: "FAIL", None: ""}


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds, over so many times."""

    count: int
    p50: float
    p95: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Of measured times; two at least."""
        return cls(
            len(seconds),
            round(statistics.median(seconds), 3),
            round(statistics.quantiles(seconds, n=20, method="inclusive")[-1], 3),
            round(max(seconds), 3),
        )

    def __str__(self) -> str:
        return f"{self.p50:.2f} s, {self.p95:.2f} s, {self.longest:.2f} s ({self.count} times)"


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run. Times in seconds, memory in MiB."""

    machine: Machine
    load_before: float
    """Load average before the run: above about 0.5, others used the machine."""
    services: int
    created: float
    """Until the last EmbeddingService was accepted by the API server."""
    applied: float
    """Until every service had its children."""
    ready: float
    """Until every service was Ready."""
    requests_per_service: float
    """The operator's requests to the API server from nothing to Ready, watches and Lease aside."""
    requests: Mapping[str, float]
    """The same by verb and resource."""
    reconcile_converging: tuple[float, float]
    """Median and 95th percentile of a reconcile until all were Ready,"""
    reconcile_steady: tuple[float, float]
    """and while nothing changed."""
    steady_seconds: float
    """How long nothing was changed; three resyncs are in it."""
    steady_writes: Sequence[str]
    """What was written in that time all the same. Lease renewals aside."""
    steady_reads: int
    steady_cpu_percent: float
    """Of one core."""
    change_converging: Times
    """From the answer to a changed spec to the changed child, while all services were being brought up,"""
    change_steady: Times
    """and while all were Ready and polled."""
    memory: float
    memory_peak: float


def quantile(figures: Mapping[float, float], share: float) -> float:
    """A quantile of a Prometheus histogram (upper bound -> cumulative count), as PromQL interpolates it."""
    total = max(figures.values(), default=0.0)
    below, lower = 0.0, 0.0
    for bound, count in sorted(figures.items()):
        if count >= share * total and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / (count - below)
        below, lower = count, bound
    return lower


def targets(report: Report) -> list[tuple[str, str, str, bool]]:
    """What is aimed at: what, wanted, got, reached."""
    writes, memory = len(report.steady_writes), report.memory_peak
    return [
        ("writes while nothing changes", "0", str(writes), writes == 0),
        (
            "resident memory at its highest",
            f"<= {MEMORY_MEBIBYTES:.0f} MiB",
            f"{memory:.0f} MiB",
            memory <= MEMORY_MEBIBYTES,
        ),
        *(
            (f"changed service acted on, p95, {when}", f"<= {REACTION_SECONDS:g} s", f"{times.p95:.2f} s", reached)
            for when, times in (("all coming up", report.change_converging), ("all ready", report.change_steady))
            for reached in (times.p95 <= REACTION_SECONDS,)
        ),
    ]


def failed(report: Report) -> bool:
    """Whether a target was missed."""
    return not all(reached for *_, reached in targets(report))


def _milliseconds(times: tuple[float, float]) -> str:
    return ", ".join(f"{1000 * seconds:.0f} ms" for seconds in times)


def rows(report: Report) -> list[Row]:
    """The figures, with a header."""
    return [
        ["what", "figure"],
        ["services", str(report.services)],
        [
            "all created, all applied, all Ready",
            f"{report.created:.0f} s, {report.applied:.0f} s, {report.ready:.0f} s",
        ],
        ["requests per service, from nothing to Ready", f"{report.requests_per_service:.1f}"],
        ["one reconcile while all come up: p50, p95", _milliseconds(report.reconcile_converging)],
        ["one reconcile at rest: p50, p95", _milliseconds(report.reconcile_steady)],
        [f"writes at rest in {report.steady_seconds:.0f} s", str(len(report.steady_writes))],
        [f"reads at rest in {report.steady_seconds:.0f} s", str(report.steady_reads)],
        ["processor at rest", f"{report.steady_cpu_percent:.0f} % of one core"],
        ["changed service acted on while all come up: p50, p95, longest", str(report.change_converging)],
        ["changed service acted on with all Ready: p50, p95, longest", str(report.change_steady)],
        ["resident memory, and its highest", f"{report.memory:.0f} MiB, {report.memory_peak:.0f} MiB"],
    ]


def table(report: Report) -> str:
    """All of it for a terminal."""
    goals: list[Row] = [["", "target", "wanted", "got"]]
    goals += [[_MARKS[reached], what, wanted, got] for what, wanted, got, reached in targets(report)]
    spent: list[Row] = [["requests per service", ""], *([name, f"{n:.2f}"] for name, n in report.requests.items())]
    machine = report.machine
    where = f"{machine.processor}, {machine.processors} processors, {machine.memory_gigabytes:g} GB"
    parts = [text_table(rows(report)), text_table(spent), text_table(goals)]
    if report.steady_writes:
        parts.append("written at rest:\n" + "\n".join(f"  {write}" for write in report.steady_writes[:20]))
    parts.append(
        f"the operator at scale: control plane, operator and played Pods on {where}; Linux {machine.kernel}, Python "
        f"{machine.python}; load average before: {report.load_before:.2f}"
    )
    return "\n\n".join(parts)
