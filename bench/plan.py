"""How long and how often: the plan of a run, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds and window lengths in seconds. The order of servers turns by one from round to round."""

    name: str
    rounds: int
    seconds: float
    warmup: float
    # Lone requests while bulk saturates, a queue over its limit: one long window each, as they are about tails.
    tail_seconds: float
    connections: tuple[int, ...]
    # Offered load of the plot, as parts of our own throughput in closed loop.
    offered: tuple[float, ...]
    offered_seconds: float
    starts: int
    # After so long the loads of the plot that are left are skipped: a busy machine must not make a run endless.
    minutes: float = 14.0


FULL = Plan(
    name="full",
    rounds=3,
    seconds=4.0,
    warmup=1.0,
    tail_seconds=12.0,
    connections=(8, 32, 128, 512),
    offered=(0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.15),
    offered_seconds=4.0,
    starts=3,
)
QUICK = Plan(
    name="quick",
    rounds=1,
    seconds=2.0,
    warmup=0.5,
    tail_seconds=4.0,
    connections=(8, 512),
    offered=(0.25, 0.7, 1.0),
    offered_seconds=2.0,
    starts=1,
    minutes=4.0,
)
