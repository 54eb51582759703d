"""One model in process and over HTTP, at one precision: tokens/s for every length and concurrency."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.driver import Driver
from bench.errors import BenchError
from bench.jobs import BEGIN, END, Job, Tally
from bench.servers import Role, ServerProcess, ServerSpec
from bench.statistics import percentile
from bench.workloads import MIXED, MODEL_NAME

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """What is tried. `in_flight`: texts in flight in process; `http`: (texts a request, requests in flight)."""

    lengths: tuple[int, ...] = (50, 512)
    budgets: tuple[int, ...] = (16384, 65536)
    in_flight: tuple[int, ...] = (256, 2048)
    http: tuple[tuple[int, int], ...] = ((1, 64), (1, 1024), (32, 64), (128, 32))
    seconds: float = 5.0
    warmup: float = 2.0
    generators: int = 4


@dataclass(frozen=True, slots=True)
class Speed:
    """One figure. `where`: forward (tokenised before), in process (tokenising included) or HTTP."""

    model: str
    precision: str
    where: str
    length: int
    texts_per_request: int
    in_flight: int
    batch_tokens: int | None
    tokens_per_second: float
    texts_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int = 0

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, and how it is reached."""

    name: str
    directory: Path
    precision: str
    device: str
    plan: GpuPlan
    logs: Path
    say: Say

    def job(self, length: int, texts: int, in_flight: int, *, prepared: bool = False, port: int = 0) -> Job:
        """One window."""
        return Job(
            model=str(self.directory),
            workload=MIXED.name,
            warmup=self.plan.warmup,
            seconds=self.plan.seconds,
            seed=length,
            port=port,
            concurrency=in_flight,
            tokens=length,
            texts_per_request=texts,
            encoding="base64",
            prepared=prepared,
        )

    def speed(self, where: str, job: Job, budget: int | None, tally: Tally) -> Speed:
        """The figure of a window."""
        latencies = [seconds * 1000 for seconds in tally.latencies]
        rate = tally.texts / tally.seconds
        speed = Speed(
            self.name, self.precision, where, job.tokens, job.texts_per_request, job.concurrency, budget,
            rate * job.tokens, rate, percentile(latencies, 0.5), percentile(latencies, 0.99), tally.failures,
        )  # fmt: skip
        self.say(
            f"{self.name} {self.precision} {where}: {job.tokens} tokens, {job.texts_per_request} a request, "
            f"{job.concurrency} in flight{f', {budget} a batch' if budget else ''}: "
            f"{speed.tokens_per_second:,.0f} tokens/s"
        )
        return speed


def in_process(subject: Subject) -> Iterator[Speed]:
    """The forward alone, then with tokenising, for every budget, length and number of texts in flight."""
    for budget in subject.plan.budgets:
        driver = Driver(
            "bench.ceiling",
            ["--model", str(subject.directory), "--precision", subject.precision.lower(), "--device", subject.device,
             "--batch-tokens", str(budget)],
        )  # fmt: skip
        try:
            driver.wait_for("ready", 600)
            for length in subject.plan.lengths:
                for in_flight in subject.plan.in_flight:
                    for prepared, where in ((True, "forward"), (False, "in process")):
                        job = subject.job(length, 1, in_flight, prepared=prepared)
                        tally, _, _ = driver.run(job, lambda: None)
                        yield subject.speed(where, job, budget, tally)
        finally:
            driver.close()


def spec(subject: Subject) -> ServerSpec:
    """Our server with its defaults on that device."""
    return ServerSpec(
        name=f"{subject.name}-{subject.precision}",
        title=f"{subject.name} {subject.precision}",
        role=Role.OURS,
        command=(
            sys.executable, "-m", "embedding_runtime", "serve", "--model", str(subject.directory),
            "--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", "{port}",
            "--device", subject.device.capitalize(), "--precision", subject.precision,
            "--cache-dir", str(subject.logs / "cache"), "--max-queued-tokens", "50000000",
        ),
        ready_path="/v1/health/ready",
        path="/v1/embeddings",
    )  # fmt: skip


def over_http(subject: Subject) -> Iterator[Speed]:
    """Our server under load of several generator processes."""
    with ExitStack() as stack:
        server = ServerProcess(spec(subject), subject.logs)
        stack.callback(server.stop)
        server.wait_until_ready()
        drivers = []
        for _ in range(subject.plan.generators):
            drivers.append(Driver("bench.generator"))
            stack.callback(drivers[-1].close)
        for length in subject.plan.lengths:
            for texts, in_flight in subject.plan.http:
                share = max(1, in_flight // len(drivers))
                job = subject.job(length, texts, share, port=server.port)
                tally = together(drivers, job)
                yield subject.speed("HTTP", subject.job(length, texts, share * len(drivers)), None, tally)


def together(drivers: list[Driver], job: Job) -> Tally:
    """The same job on all generators at once, each with texts of its own; rates add up. Raises BenchError."""
    for number, driver in enumerate(drivers):
        driver.give(Job(**{**asdict(job), "seed": job.seed + 1000 * number}))
    for word in (BEGIN, END):
        for driver in drivers:
            driver.wait_for(word, 300)
    tallies = [Tally.parse(driver.next_line()) for driver in drivers]
    if any(tally.seconds <= 0 for tally in tallies):
        raise BenchError("a generator saw no answers in its window; make the windows longer with --seconds")
    longest = max(tally.seconds for tally in tallies)
    return Tally(
        seconds=longest,
        texts=round(longest * sum(tally.texts / tally.seconds for tally in tallies)),
        latencies=[latency for tally in tallies for latency in tally.latencies],
        statuses={"200": sum(len(tally.latencies) for tally in tallies), "failed": sum(t.failures for t in tallies)},
    )
