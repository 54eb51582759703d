"""What a run consists of: the comparison of all servers, and what is asked of our own beyond it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from bench.catalog import OURS, Sources, ours
from bench.driver import Driver
from bench.jobs import BEGIN, END, Job, Tally
from bench.measure import Sample, measure, running_alone, sample_of, turned
from bench.plan import Plan
from bench.servers import Role, ServerProcess, ServerSpec, Usage
from bench.statistics import median
from bench.targets import OVERLOAD_QUEUE_SECONDS
from bench.texts import mixed_lengths
from bench.workloads import COMPARED, MIXED, PASSAGES, QUERY, SHORT, Workload

Say = Callable[[str], None]
# Precisions beside Float32 are for throughput.
_BESIDE = (SHORT, MIXED)
_PLOT_CUT = 1.6


@dataclass(frozen=True, slots=True)
class Setting:
    """What every experiment needs."""

    sources: Sources
    plan: Plan
    logs: Path
    driver: Driver
    say: Say
    began: float = field(default_factory=time.perf_counter)

    @property
    def is_late(self) -> bool:
        """Whether the run has taken as long as it should."""
        return time.perf_counter() - self.began > 60 * self.plan.minutes

    def job(self, workload: Workload, server: ServerProcess, seed: int) -> Job:
        """The job of a comparison window."""
        return Job(
            model=str(self.sources.model),
            workload=workload.name,
            warmup=self.plan.warmup,
            seconds=self.plan.seconds,
            seed=seed,
            port=server.port,
            path=server.spec.path,
            concurrency=workload.concurrency,
        )


@contextmanager
def started(setting: Setting, specs: Sequence[ServerSpec]) -> Iterator[list[ServerProcess]]:
    """All servers, started one after the other and paused."""
    with ExitStack() as stack:
        servers = []
        for spec in specs:
            server = ServerProcess(spec, setting.logs)
            stack.callback(server.stop)
            server.wait_until_ready()
            server.peak_rss = server.rss_megabytes()
            setting.say(f"{spec.title}: first vectors after {server.start_seconds:.1f} s")
            server.pause()
            servers.append(server)
        yield servers


def compare(
    setting: Setting, servers: Sequence[ServerProcess], ceiling: Driver | None
) -> tuple[list[Sample], list[Sample]]:
    """Every workload on every server in every round, one server at a time; and the ceiling right after ours."""
    samples: list[Sample] = []
    inside: list[Sample] = []
    for number in range(setting.plan.rounds):
        for workload in COMPARED:
            for server in turned(servers, number):
                if server.spec.role is Role.BESIDE and workload not in _BESIDE:
                    continue
                with running_alone(server):
                    job = setting.job(workload, server, seed=1000 * number + 1)
                    sample = measure(setting.driver, server, job, number)
                samples.append(sample)
                setting.say(_line(setting.plan, server.spec.title, sample))
                if server.spec.name == OURS and workload is MIXED and ceiling is not None:
                    inside.append(in_process(ceiling, job, number))
                    setting.say(_line(setting.plan, "in process", inside[-1]))
    return samples, inside


def in_process(ceiling: Driver, job: Job, number: int) -> Sample:
    """One window of the in-process forward."""
    process = psutil.Process(ceiling.pid)

    def usage() -> Usage:
        own, machine = process.cpu_times(), psutil.cpu_times()
        busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
        return Usage(own.user + own.system, busy, 0.0, machine.steal, time.perf_counter())

    process.resume()
    try:
        tally, before, after = ceiling.run(job, usage)
    finally:
        process.suspend()
    return sample_of("in-process", job, number, tally, before, after)


def connections(setting: Setting, server: ServerProcess) -> Iterator[Sample]:
    """The same load over few and many connections."""
    for number in range(setting.plan.rounds):
        if number and setting.is_late:
            return
        for count in setting.plan.connections:
            with running_alone(server):
                job = replace(setting.job(MIXED, server, seed=70_000 + number), concurrency=count)
                # A full set of connections must have been answered before anything is counted.
                job = replace(job, warmup=job.warmup + count / 200)
                sample = measure(setting.driver, server, job, number)
            setting.say(_line(setting.plan, f"{count} connections", sample))
            yield sample


def queries(setting: Setting, server: ServerProcess) -> tuple[Sample, Sample]:
    """Lone queries on an idle server, then while bulk passages saturate it."""
    job = replace(setting.job(QUERY, server, seed=80_000), seconds=setting.plan.tail_seconds)
    bulk = replace(
        setting.job(PASSAGES, server, seed=80_001), warmup=1.0, seconds=setting.plan.tail_seconds + 2 * job.warmup + 2
    )
    with running_alone(server):
        alone = measure(setting.driver, server, job, 0)
        crowd = Driver("bench.generator")
        try:
            crowd.give(bulk)
            crowd.wait_for(BEGIN)
            beside = measure(setting.driver, server, job, 0)
            crowd.wait_for(END)
            passages = Tally.parse(crowd.next_line())
        finally:
            crowd.close()
    setting.say(f"lone queries: p99 {alone.p99:.1f} ms alone, {beside.p99:.1f} ms beside "
                f"{passages.texts / passages.seconds:.0f} passages/s")  # fmt: skip
    return alone, beside


def overload(setting: Setting, capacity: float) -> Sample:
    """Twice the capacity offered to a server whose queue holds about a second of work."""
    lengths = mixed_lengths(2000, 1)
    tokens = int(OVERLOAD_QUEUE_SECONDS * capacity * sum(lengths) / len(lengths))
    spec = ours(setting.sources, "Float32", "--max-queued-tokens", str(tokens), name="ours-small-queue")
    with started(setting, [replace(spec, role=Role.BESIDE)]) as [server], running_alone(server):
        job = replace(setting.job(MIXED, server, seed=90_000), rate=2 * capacity, warmup=3.0,
                      seconds=setting.plan.tail_seconds / 2)  # fmt: skip
        sample = measure(setting.driver, server, job, 0)
    setting.say(
        f"overload: {sample.statuses}, p99 of answers {sample.p99:.0f} ms, of refusals {sample.refusal_p99:.0f} ms"
    )
    return sample


def offered_load(setting: Setting, servers: Sequence[ServerProcess], capacity: Mapping[str, float]) -> Iterator[Sample]:
    """Latency and throughput at fixed offered loads, for the plot. Loads far above a server's capacity are left out."""
    for part in setting.plan.offered:
        if setting.is_late:
            setting.say(f"the run has taken more than {setting.plan.minutes:g} minutes: the loads left are not offered")
            return
        rate = part * capacity[OURS]
        for server in servers:
            if rate > _PLOT_CUT * capacity[server.spec.name]:
                continue
            with running_alone(server):
                job = replace(setting.job(MIXED, server, seed=60_000), rate=rate, seconds=setting.plan.offered_seconds)
                sample = measure(setting.driver, server, job, 0)
            setting.say(_line(setting.plan, f"{server.spec.title} at {rate:.0f}/s", sample))
            yield sample


def starts(setting: Setting, spec: ServerSpec) -> list[float]:
    """Seconds from process start to first vectors, again and again."""
    seconds = []
    for number in range(setting.plan.starts):
        # A cache of its own: nothing that an earlier start computed is there.
        fresh = ours(setting.sources, name=f"start-{number}") if spec.name == OURS else spec
        server = ServerProcess(fresh, setting.logs)
        try:
            server.wait_until_ready()
        finally:
            server.stop()
        seconds.append(server.start_seconds)
    setting.say(f"{spec.title}: starts within {', '.join(f'{value:.1f}' for value in seconds)} s")
    return seconds


def capacities(samples: Sequence[Sample]) -> dict[str, float]:
    """Texts/s of each server in closed loop on mixed lengths."""
    names = {sample.server for sample in samples}
    return {
        name: median([s.texts_per_second for s in samples if s.server == name and s.workload == MIXED.name])
        for name in names
    }


def _line(plan: Plan, title: str, sample: Sample) -> str:
    return (
        f"round {sample.round + 1}/{plan.rounds}  {sample.workload:<6} {title:<34} "
        f"{sample.texts_per_second:8.1f} texts/s  p50 {sample.p50:8.1f} ms  "
        f"p99 {sample.p99:8.1f} ms  {sample.cpu_seconds_per_1000:6.2f} CPU s/1000"
        + (f"  ({sample.failures} failed)" if sample.failures else "")
        + (f"  [others used {sample.foreign_share:.0%}]" if sample.foreign_share > 0.05 else "")
    )
