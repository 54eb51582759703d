"""Results of a run that never was, for the tests of what is made of results."""

from __future__ import annotations

from bench.machine import Machine
from bench.measure import Sample
from bench.results import Results, ServerFacts
from bench.servers import Role
from bench.workloads import COMPARED

MACHINE = Machine("a CPU", 2, ("avx512_bf16", "avx512_vnni"), 16.0, "6.1", "3.11.7", {"torch": "2.13.0"}, True)
ROUNDS = 3


def sample(server: str, workload: str, number: int, rate: float, p50: float = 3.0, **more: object) -> Sample:
    """A window."""
    figures = {"p90": 2 * p50, "p99": 3 * p50, "cpu_seconds_per_1000": 2000 / rate, "requests": 100} | more
    return Sample(server, workload, number, rate, p50, **figures)  # type: ignore[arg-type]


def facts(name: str, role: Role, cosine: float = 1.0) -> ServerFacts:
    """A server."""
    return ServerFacts(name, name.title(), role, "1.0", [2.0, 3.0, 4.0], 600.0, cosine, f"{name} serve")


def results(ours: float, **peers: float) -> Results:
    """A run in which our server and the named peers had these texts/s, in every workload and round."""
    rates = {"ours": ours, **peers}
    samples = tuple(
        sample(name, workload.name, number, rate)
        for number in range(ROUNDS)
        for workload in COMPARED
        for name, rate in rates.items()
    )
    roles = {name: Role.OURS if name == "ours" else Role.PEER for name in rates}
    return Results(
        machine=MACHINE,
        plan="full",
        began="2026-11-20 12:00 UTC",
        took_seconds=600.0,
        load_before=0.1,
        model="model",
        servers=tuple(facts(name, role) for name, role in roles.items()),
        samples=samples,
    )
