"""A whole run: all servers up, every experiment in turn, one Results."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench import catalog, machine
from bench.catalog import OURS, PRECISIONS, Sources
from bench.driver import Driver
from bench.errors import BenchError
from bench.experiments import (
    Setting,
    capacities,
    compare,
    connections,
    offered_load,
    overload,
    queries,
    started,
    starts,
)
from bench.measure import Sample, running_alone
from bench.plan import Plan
from bench.results import Results, ServerFacts
from bench.servers import Role, ServerProcess, ServerSpec
from bench.texts import mixed_texts, vocabulary

# A peer below this computes something else: its figures would compare different work.
_SAME_WORK = 0.999
_PROBES = 24


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked for. `peers` None: all that can be had."""

    sources: Sources
    plan: Plan
    peers: frozenset[str] | None
    precisions: tuple[str, ...]
    logs: Path


def run(request: Request, say: Callable[[str], None]) -> Results:
    """Measure everything. Raises BenchError when a server does not start or stops answering."""
    facts, began = machine.describe(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = machine.load_average()
    peers = catalog.peers(request.sources, request.peers)
    driver = Driver("bench.generator")
    setting = Setting(request.sources, request.plan, request.logs, driver, say)
    notes: list[str] = []
    specs = [catalog.ours(request.sources), *_beside(setting, request.precisions, notes), *peers]
    ceiling = Driver("bench.ceiling", ["--model", str(request.sources.model)])
    try:
        ceiling.wait_for("ready")
        with started(setting, specs) as servers:
            cosines = _cosines(setting, servers)
            samples, inside = compare(setting, servers, ceiling)
            ceiling.close()
            extra = _beyond(setting, servers, samples)
            memory = {server.spec.name: server.peak_rss for server in servers}
            first = {server.spec.name: server.start_seconds for server in servers}
        ours_starts = starts(setting, specs[0])
    finally:
        ceiling.close()
        driver.close()
    return Results(
        machine=facts,
        plan=request.plan.name,
        began=began,
        took_seconds=0.0,
        load_before=load,
        model=request.sources.model.name,
        servers=tuple(
            ServerFacts(
                name=spec.name,
                title=spec.title,
                role=spec.role,
                version=spec.version,
                start_seconds=ours_starts if spec.name == OURS else [first[spec.name]],
                peak_rss_megabytes=memory[spec.name],
                cosine=cosines[spec.name],
                command=_shown(spec),
            )
            for spec in specs
        ),
        samples=tuple(samples),
        ceiling=tuple(inside),
        extra=extra,
        notes=tuple(notes),
    )


def _beside(setting: Setting, precisions: Sequence[str], notes: list[str]) -> list[ServerSpec]:
    """Our other precisions, those that start."""
    found = []
    for precision in precisions:
        if precision not in PRECISIONS or PRECISIONS[precision] == OURS:
            raise BenchError(f"--precisions {precision} is none of BFloat16 and Int8")
        spec = catalog.ours(setting.sources, precision)
        try:
            with started(setting, [spec]):
                found.append(spec)
        except BenchError as error:
            notes.append(f"{spec.title} did not start, so it was left out: {error}")
            setting.say(notes[-1])
    return found


def _cosines(setting: Setting, servers: Sequence[ServerProcess]) -> dict[str, float]:
    """The least cosine of each server's vectors to our Float32's. Raises BenchError when a peer does other work."""
    texts = mixed_texts(_PROBES, vocabulary(setting.sources.model), seed=42)
    vectors = {}
    for server in servers:
        with running_alone(server):
            rows = np.asarray(server.embed(texts), dtype=np.float64)
        vectors[server.spec.name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = {name: float((rows * vectors[OURS]).sum(axis=1).min()) for name, rows in vectors.items()}
    for server in servers:
        if server.spec.role is Role.PEER and cosines[server.spec.name] < _SAME_WORK:
            raise BenchError(
                f"{server.spec.title} gives other vectors than we (cosine {cosines[server.spec.name]:.4f}): "
                "its model or pooling differs, and its figures would say nothing"
            )
    return cosines


def _beyond(
    setting: Setting, servers: Sequence[ServerProcess], samples: Sequence[Sample]
) -> dict[str, tuple[Sample, ...]]:
    """What is asked of our server alone, and the plot's loads."""
    ours = next(server for server in servers if server.spec.name == OURS)
    capacity = capacities(samples)
    extra: dict[str, tuple[Sample, ...]] = {"connections": tuple(connections(setting, ours))}
    alone, beside = queries(setting, ours)
    extra |= {"query alone": (alone,), "query beside passages": (beside,)}
    extra["overload"] = (overload(setting, capacity[OURS]),)
    compared = [server for server in servers if server.spec.role is not Role.BESIDE]
    extra["offered"] = tuple(offered_load(setting, compared, capacity))
    return extra


def _shown(spec: ServerSpec) -> str:
    """The command, without this machine's paths."""
    parts = [part.rsplit("/", 1)[-1] if part.startswith("/") else part for part in spec.command]
    return shlex.join(parts).replace("'{port}'", "PORT")
