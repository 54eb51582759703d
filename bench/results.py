"""All figures of a run, and how they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.machine import Machine
from bench.measure import Sample
from bench.servers import Role
from bench.statistics import median


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of a server beside its windows. Memory in units of 10^6 bytes, times in seconds."""

    name: str
    title: str
    role: Role
    version: str
    start_seconds: list[float]
    peak_rss_megabytes: float
    # The least cosine of its vectors to our Float32's.
    cosine: float
    command: str


@dataclass(frozen=True, slots=True)
class Results:
    """One run. `extra` maps the names of further experiments to their samples."""

    machine: Machine
    plan: str
    began: str
    took_seconds: float
    load_before: float
    model: str
    servers: tuple[ServerFacts, ...]
    samples: tuple[Sample, ...]
    ceiling: tuple[Sample, ...] = ()
    extra: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def server(self, name: str) -> ServerFacts | None:
        """A server by name."""
        return next((server for server in self.servers if server.name == name), None)

    def of_role(self, role: Role) -> list[ServerFacts]:
        """Servers of a role."""
        return [server for server in self.servers if server.role is role]

    def rounds(self, server: str, workload: str, figure: str) -> list[float]:
        """A figure of a server under a workload, round by round."""
        return rounds(self.samples, server, workload, figure)

    def median(self, server: str, workload: str, figure: str) -> float:
        """The median over the rounds; NaN when it was not measured."""
        return median(self.rounds(server, workload, figure))

    def as_json(self) -> dict[str, Any]:
        """Everything, for the result file."""
        return asdict(self)


def rounds(samples: Iterable[Sample], server: str, workload: str, figure: str) -> list[float]:
    """A figure of the samples of a server under a workload, in order of the rounds."""
    chosen = [sample for sample in samples if sample.server == server and sample.workload == workload]
    return [float(getattr(sample, figure)) for sample in sorted(chosen, key=lambda sample: sample.round)]


def busiest(samples: Sequence[Sample]) -> float:
    """The median over windows of the share of the machine that others used."""
    return median([sample.foreign_share + sample.steal_share for sample in samples])
