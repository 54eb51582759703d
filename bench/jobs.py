"""What a load process is told and what it says: one JSON line in, `begin`, `end` and one JSON line out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import orjson

BEGIN, END = "begin", "end"


@dataclass(frozen=True, slots=True)
class Job:
    """Load on one server. Closed: `concurrency` requests always in flight; open: Poisson arrivals of `rate` requests/s.

    Nothing is counted for the first `warmup` seconds; then the window of at least `seconds` opens and closes with an
    answer, so that its rate has no error of one request.
    """

    model: str
    workload: str
    warmup: float
    seconds: float
    seed: int
    host: str = "127.0.0.1"
    port: int = 0
    path: str = "/v1/embeddings"
    concurrency: int = 1
    rate: float | None = None
    connections: int = 512
    # Instead of the workload's: exact tokens of every text, texts of a request, and how vectors are encoded.
    tokens: int = 0
    texts_per_request: int = 0
    encoding: str = "float"
    # In process only: tokenise once, before the window.
    prepared: bool = False

    def line(self) -> str:
        return orjson.dumps(asdict(self)).decode() + "\n"

    @classmethod
    def parse(cls, line: str) -> Job:
        return cls(**orjson.loads(line))


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened within the window. `latencies` are the answered requests' (status 200), in seconds."""

    seconds: float
    texts: int
    latencies: list[float]
    refusals: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    generator_cpu_seconds: float = 0.0
    response_bytes: int = 0
    tokens: int = 0

    def line(self) -> str:
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, line: str) -> Tally:
        return cls(**orjson.loads(line))

    @property
    def failures(self) -> int:
        """Requests that got no vectors."""
        return sum(count for status, count in self.statuses.items() if status != "200")
