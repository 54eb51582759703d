"""The results as text: a terminal table and the same in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.catalog import OURS
from bench.machine import BUSY_SHARE
from bench.results import Results, busiest, rounds
from bench.servers import Role
from bench.statistics import median, spread
from bench.targets import Outcome
from bench.workloads import COMPARED, LONE, MIXED

Row = Sequence[str]
_MARKS = {True: "pass", False: "FAIL", None: "n/a"}


def text_table(rows: Sequence[Row]) -> str:
    """Columns padded to their widest cell; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown_table(rows: Sequence[Row]) -> str:
    """The same for Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    head, *rest = cells
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


_UNITS = {"texts_per_second": "texts/s", "p50": "p50 ms", "p99": "p99 ms", "cpu_seconds_per_1000": "CPU s/1000"}


def figures(results: Results) -> list[Row]:
    """Medians: a row for each figure of a workload, a column for each server."""
    rows: list[Row] = [["workload", "figure", *(server.name for server in results.servers), "in process"]]
    for workload in COMPARED:
        names = ("p50" if workload is LONE else "texts_per_second", "p99", "cpu_seconds_per_1000")
        for figure in names:
            cells = [number(results.median(server.name, workload.name, figure)) for server in results.servers]
            inside = (
                median(rounds(results.ceiling, "in-process", workload.name, figure)) if figure != "p99" else math.nan
            )
            rows.append([workload.title, _UNITS[figure], *cells, number(inside)])
    starts = [number(median(server.start_seconds)) for server in results.servers]
    memory = [number(server.peak_rss_megabytes) for server in results.servers]
    cosines = [f"{server.cosine:.5f}" for server in results.servers]
    return [
        *rows,
        ["start to first vectors", "s", *starts, ""],
        ["most resident memory", "MB", *memory, ""],
        ["least cosine to ours", "", *cosines, ""],
    ]


def number(value: float) -> str:
    """Three significant digits, no exponent; a dash for what was not measured."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def targets(outcomes: Sequence[Outcome]) -> list[Row]:
    """Every target with what came out."""
    rows: list[Row] = [["", "what", "wanted", "got", "beside", "finding"]]
    for outcome in outcomes:
        finding = outcome.finding.value if outcome.finding else ""
        rows.append([_MARKS[outcome.passed], outcome.subject, outcome.wanted, outcome.got, outcome.against, finding])
    return rows


def conditions(results: Results) -> list[str]:
    """What was measured on, and how quiet it was."""
    machine = results.machine
    samples = (*results.samples, *results.ceiling, *(sample for group in results.extra.values() for sample in group))
    generator = median([s.generator_cpu_seconds_per_1000 / s.cpu_seconds_per_1000 for s in results.samples])
    count = 1 + max((sample.round for sample in results.samples), default=0)
    ours = results.rounds(OURS, MIXED.name, "texts_per_second")
    lines = [
        f"{machine.processor}, {machine.processors} processors{' (virtual machine)' if machine.virtual else ''}, "
        f"{', '.join(machine.flags) or 'no AVX-512'}; {machine.memory_gigabytes:g} GB; Linux {machine.kernel}",
        f"Python {machine.python}, " + ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        f"{results.plan} run of {results.took_seconds / 60:.0f} minutes, begun {results.began}; medians of {count} "
        f"round{'s' if count > 1 else ''}, servers interleaved, all but one stopped; our mixed texts/s differ by "
        f"{spread(ours):.0%} between them",
        f"load generator on the same machine: {generator:.1%} of the servers' processor time",
        f"others used {busiest(samples):.1%} of the machine (median over windows); load average before: "
        f"{results.load_before:.2f}",
    ]
    if busiest(samples) > BUSY_SHARE:
        lines.append(
            "WARNING: the machine was busy with other work. Throughput and latency of every server are lower than on a "
            "quiet machine, and those with spinning threads suffer most; run again when nothing else runs"
        )
    return [*lines, *results.notes]


def report(results: Results, outcomes: Sequence[Outcome], problems: Sequence[str]) -> str:
    """All of it for a terminal."""
    passed = sum(outcome.passed is True for outcome in outcomes)
    failed = sum(outcome.passed is False for outcome in outcomes)
    peers = len(results.of_role(Role.PEER))
    names = "\n".join(f"{server.name}: {server.title} {server.version}".rstrip() for server in results.servers)
    parts = [
        text_table(figures(results)),
        names,
        text_table(targets(outcomes)),
        f"{passed} targets reached, {failed} not, {len(outcomes) - passed - failed} not measured; {peers} peers. "
        "A difference within 10 % is no finding.",
        "\n".join(conditions(results)),
    ]
    if problems:
        parts.append("requests failed in these windows:\n" + "\n".join(f"  {problem}" for problem in problems))
    return "\n\n".join(parts)
