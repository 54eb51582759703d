"""Runs one batch and isolates what fails in it: bisects out the input at fault, splits what does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_runtime.engine.model import DeviceLostError, Matrix, OutOfMemoryError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The vectors of some payloads of a batch, or why they have none: positions are those in the batch."""

    positions: tuple[int, ...]
    vectors: Matrix | None
    error: Exception | None = None


def run_isolated(
    embed: Callable[[Sequence[object]], Matrix], payloads: Sequence[object], on_out_of_memory: Callable[[], None]
) -> list[Outcome]:
    """Embed all payloads; when that fails, halve until only the payloads at fault are left.

    Raises DeviceLostError: then nothing can be retried. Every other exception ends up in an Outcome.
    """
    # Every request of a batch may have been cancelled between its choice and its start.
    pending = [tuple(range(len(payloads)))] if payloads else []
    outcomes: list[Outcome] = []
    while pending:
        positions = pending.pop()
        try:
            vectors = embed([payloads[position] for position in positions])
        except DeviceLostError:
            raise
        except Exception as error:
            if isinstance(error, OutOfMemoryError):
                on_out_of_memory()
            if len(positions) == 1:
                outcomes.append(Outcome(positions, None, error))
            else:
                middle = len(positions) // 2
                pending += [positions[middle:], positions[:middle]]
            continue
        outcomes.append(Outcome(positions, vectors))
    return outcomes
