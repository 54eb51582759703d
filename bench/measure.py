"""One server, one workload, one window: what came out, how long it took and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil

from bench.driver import Driver
from bench.errors import BenchError
from bench.jobs import Job, Tally
from bench.servers import ServerProcess, Usage
from bench.statistics import percentile

_RESUME_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One window. Latencies are milliseconds of the requests answered in it; shares are of all processors."""

    server: str
    workload: str
    round: int
    texts_per_second: float
    p50: float
    p90: float
    p99: float
    cpu_seconds_per_1000: float
    generator_cpu_seconds_per_1000: float = 0.0
    foreign_share: float = 0.0
    steal_share: float = 0.0
    requests: int = 0
    failures: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    refusal_p99: float = float("nan")
    offered: float | None = None
    concurrency: int | None = None


def sample_of(server: str, job: Job, number: int, tally: Tally, before: Usage, after: Usage) -> Sample:
    """The figures of a window from its tally and from what was used at its two ends."""
    latencies = [seconds * 1000 for seconds in tally.latencies]
    cpu = after.cpu_seconds - before.cpu_seconds
    processors = (after.at - before.at) * (psutil.cpu_count() or 1)
    harness = after.own_cpu_seconds - before.own_cpu_seconds
    busy = after.machine_busy_seconds - before.machine_busy_seconds
    foreign = busy - cpu - tally.generator_cpu_seconds - harness
    thousands = tally.texts / 1000
    return Sample(
        server=server,
        workload=job.workload,
        round=number,
        texts_per_second=tally.texts / tally.seconds,
        p50=percentile(latencies, 0.50),
        p90=percentile(latencies, 0.90),
        p99=percentile(latencies, 0.99),
        cpu_seconds_per_1000=cpu / thousands if thousands else float("nan"),
        generator_cpu_seconds_per_1000=tally.generator_cpu_seconds / thousands if thousands else float("nan"),
        foreign_share=max(0.0, foreign / processors),
        steal_share=(after.steal_seconds - before.steal_seconds) / processors,
        requests=len(tally.latencies),
        failures=tally.failures,
        statuses=tally.statuses,
        refusal_p99=percentile([seconds * 1000 for seconds in tally.refusals], 0.99),
        offered=job.rate,
        concurrency=job.concurrency if job.rate is None else None,
    )


def measure(driver: Driver, server: ServerProcess, job: Job, number: int) -> Sample:
    """Do a job on a server that runs alone."""
    with server.watching_memory():
        tally, before, after = driver.run(job, server.usage)
    return sample_of(server.spec.name, job, number, tally, before, after)


@contextmanager
def running_alone(server: ServerProcess) -> Iterator[ServerProcess]:
    """Let a paused server run for this block, once it answers again."""
    server.resume()
    try:
        _wait_until_answering(server)
        yield server
    finally:
        server.pause()


def _wait_until_answering(server: ServerProcess) -> None:
    """It was stopped for a while: give it a moment to notice, and fail when it does not come back."""
    deadline = time.perf_counter() + _RESUME_TIMEOUT
    while True:
        try:
            server.embed(["are you there"])
            return
        except (BenchError, httpx.TransportError) as error:
            if time.perf_counter() > deadline:
                raise BenchError(f"{server.spec.title} did not come back after a pause: {error}") from error
            time.sleep(0.1)


def turned(servers: Sequence[ServerProcess], by: int) -> list[ServerProcess]:
    """The servers in an order that turns by one from round to round, so that none is always first."""
    by %= max(1, len(servers))
    return [*servers[by:], *servers[:by]]
