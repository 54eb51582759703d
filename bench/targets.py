"""What we want to reach, as data, and whether a run reached it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.catalog import OURS, PRECISIONS
from bench.measure import Sample
from bench.results import Results, ServerFacts, rounds
from bench.servers import Role
from bench.statistics import Verdict, median, paired_ratio, verdict
from bench.workloads import BULK, COMPARED, LONE, MIXED, SHORT, Workload

THROUGHPUT = {SHORT.name: 1.2, MIXED.name: 1.5, BULK.name: 1.5}
LONE_P50, CPU, CEILING = 1.0, 0.8, 0.9
SPEEDUP = {"BFloat16": 1.7, "Int8": 2.3}
COSINE = {"BFloat16": 0.9995, "Int8": 0.99}
QUERY_P99, FLAT, RSS, START = 3.0, 0.10, 700.0, 6.0
# Refusing must not take long: milliseconds.
REFUSAL_P99 = 100.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One target: what was wanted, what came out, against whom. `passed` is None when it could not be measured."""

    subject: str
    wanted: str
    got: str
    passed: bool | None
    against: str = ""
    finding: Verdict | None = None


def _compare(value: float, limit: float, *, at_least: bool) -> bool | None:
    if math.isnan(value):
        return None
    return value >= limit if at_least else value <= limit


def best_peer(results: Results, workload: Workload, figure: str, *, more_is_better: bool) -> ServerFacts | None:
    """The peer with the best median of a figure under a workload."""
    measured = {peer.name: results.median(peer.name, workload.name, figure) for peer in results.of_role(Role.PEER)}
    known = {name: value for name, value in measured.items() if not math.isnan(value)}
    if not known:
        return None
    name = max(known, key=lambda name: known[name] if more_is_better else -known[name])
    return results.server(name)


def ratio_to_best(results: Results, workload: Workload, figure: str, *, more_is_better: bool) -> tuple[float, str]:
    """Ours / the best peer's, paired by round, and that peer's title."""
    peer = best_peer(results, workload, figure, more_is_better=more_is_better)
    if peer is None:
        return math.nan, "no peer"
    mine = results.rounds(OURS, workload.name, figure)
    theirs = results.rounds(peer.name, workload.name, figure)
    return (paired_ratio(mine, theirs) if len(mine) == len(theirs) else math.nan), peer.title


def judge(results: Results) -> list[Outcome]:
    """Every target of a run."""
    checks: list[Callable[[Results], Iterator[Outcome]]] = [
        _against_peers, _processor_time, _against_ceiling, _precisions, _tails, _connections, _overload, _footprint,
    ]  # fmt: skip
    return [outcome for check in checks for outcome in check(results)]


def _ratio_outcome(
    results: Results, workload: Workload, figure: str, limit: float, what: str, *, more_is_better: bool
) -> Outcome:
    ratio, against = ratio_to_best(results, workload, figure, more_is_better=more_is_better)
    sign = "≥" if more_is_better else "≤"
    return Outcome(
        f"{what}: {workload.title}", f"{sign} {limit:g}×", f"{ratio:.2f}×",
        _compare(ratio, limit, at_least=more_is_better), against, verdict(ratio, more_is_better=more_is_better),
    )  # fmt: skip


def _against_peers(results: Results) -> Iterator[Outcome]:
    for workload in COMPARED:
        if workload.name in THROUGHPUT:
            limit = THROUGHPUT[workload.name]
            yield _ratio_outcome(results, workload, "texts_per_second", limit, "texts/s", more_is_better=True)
    yield _ratio_outcome(results, LONE, "p50", LONE_P50, "p50", more_is_better=False)


def _processor_time(results: Results) -> Iterator[Outcome]:
    for workload in COMPARED:
        yield _ratio_outcome(
            results, workload, "cpu_seconds_per_1000", CPU, "CPU s per 1 000 texts", more_is_better=False
        )


def _against_ceiling(results: Results) -> Iterator[Outcome]:
    ours = results.rounds(OURS, MIXED.name, "texts_per_second")
    inside = rounds(results.ceiling, "in-process", MIXED.name, "texts_per_second")
    ratio = paired_ratio(ours, inside) if len(ours) == len(inside) else math.nan
    yield Outcome(
        "texts/s over HTTP: mixed lengths", f"≥ {CEILING:g}×", f"{ratio:.2f}×", _compare(ratio, CEILING, at_least=True),
        "our own forward in process",
    )  # fmt: skip


def _precisions(results: Results) -> Iterator[Outcome]:
    able = {"BFloat16": results.machine.has_bfloat16, "Int8": results.machine.has_int8}
    base = results.rounds(OURS, MIXED.name, "texts_per_second")
    for precision, limit in SPEEDUP.items():
        server = results.server(PRECISIONS[precision])
        if server is None:
            yield Outcome(f"texts/s in {precision}: mixed lengths", f"≥ {limit:g}×", "not run", None, "our Float32")
            continue
        fast = results.rounds(server.name, MIXED.name, "texts_per_second")
        ratio = paired_ratio(fast, base) if len(fast) == len(base) else math.nan
        passed = _compare(ratio, limit, at_least=True) if able[precision] else None
        against = "our Float32" if able[precision] else "our Float32 (this CPU has no instructions for it)"
        yield Outcome(f"texts/s in {precision}: mixed lengths", f"≥ {limit:g}×", f"{ratio:.2f}×", passed, against)
        wanted = COSINE[precision]
        yield Outcome(
            f"least cosine in {precision}", f"≥ {wanted:g}", f"{server.cosine:.5f}",
            _compare(server.cosine, wanted, at_least=True), "our Float32",
        )  # fmt: skip


def _tails(results: Results) -> Iterator[Outcome]:
    idle = rounds(results.extra.get("query alone", ()), OURS, "query", "p99")
    busy = rounds(results.extra.get("query beside passages", ()), OURS, "query", "p99")
    ratio = median(busy) / median(idle) if idle else math.nan
    yield Outcome(
        "p99 of lone queries while passages saturate", f"≤ {QUERY_P99:g}×",
        f"{ratio:.2f}× ({median(idle):.1f} → {median(busy):.1f} ms)", _compare(ratio, QUERY_P99, at_least=False),
        "their p99 when idle",
    )  # fmt: skip


def _connections(results: Results) -> Iterator[Outcome]:
    samples = results.extra.get("connections", ())
    rates = {
        count: median([sample.texts_per_second for sample in samples if sample.concurrency == count])
        for count in sorted({sample.concurrency or 0 for sample in samples})
    }
    values = list(rates.values())
    # Flat: no count is slower than the fewest connections by more than the tolerance.
    worst = min(values) / values[0] if values else math.nan
    yield Outcome(
        f"texts/s from {min(rates, default=0)} to {max(rates, default=0)} connections", f"≥ {1 - FLAT:g}×",
        f"{worst:.2f}× ({', '.join(f'{count}: {rate:.0f}' for count, rate in rates.items())})",
        _compare(worst, 1 - FLAT, at_least=True), "the fewest connections",
    )  # fmt: skip


def _overload(results: Results) -> Iterator[Outcome]:
    for sample in results.extra.get("overload", ()):
        refused = sample.statuses.get("429", 0)
        others = {status: count for status, count in sample.statuses.items() if status not in ("200", "429")}
        bound = _overload_bound(results)
        passed = refused > 0 and not others and sample.refusal_p99 <= REFUSAL_P99 and sample.p99 <= bound
        yield Outcome(
            f"twice the capacity offered, {OVERLOAD_QUEUE_SECONDS:g} s of queue",
            f"429s within {REFUSAL_P99:g} ms, p99 ≤ {bound:.0f} ms",
            f"{refused} × 429 within {sample.refusal_p99:.0f} ms, {sample.requests} answered, p99 {sample.p99:.0f} ms"
            + (f", also {others}" if others else ""),
            passed,
        )


OVERLOAD_QUEUE_SECONDS = 1.0


def _overload_bound(results: Results) -> float:
    """Milliseconds an admitted request may take: the queue it found, half as much again, and what it takes unloaded."""
    return 1500 * OVERLOAD_QUEUE_SECONDS + 500


def _footprint(results: Results) -> Iterator[Outcome]:
    ours = results.server(OURS)
    if ours is None:
        return
    peers = results.of_role(Role.PEER)
    sizes = ", ".join(f"{peer.title} {peer.peak_rss_megabytes:.0f}" for peer in peers)
    starts = ", ".join(f"{peer.title} {median(peer.start_seconds):.1f}" for peer in peers)
    rss, start = ours.peak_rss_megabytes, median(ours.start_seconds)
    yield Outcome(
        "most resident memory under load, MB", f"≤ {RSS:g}", f"{rss:.0f}", _compare(rss, RSS, at_least=False), sizes
    )
    yield Outcome(
        "process start to first vectors, s",
        f"≤ {START:g}",
        f"{start:.1f}",
        _compare(start, START, at_least=False),
        starts,
    )


def errors(samples: tuple[Sample, ...]) -> list[str]:
    """Windows in which requests failed: their figures are not to be trusted."""
    return [
        f"{sample.server}, {sample.workload}, round {sample.round + 1}: {sample.failures} of "
        f"{sample.failures + sample.requests} requests failed {sample.statuses}"
        for sample in samples
        if sample.failures
    ]
