"""Runs one batch and isolates what fails in it: bisects out the input at fault, splits what does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedding_runtime.engine.model import DeviceLostError, Item, Matrix, NotFiniteError, OutOfMemoryError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The vectors of some items of a batch, or why they have none: positions are those in the batch."""

    positions: tuple[int, ...]
    vectors: Matrix | None
    error: Exception | None = None


def run_isolated(
    embed: Callable[[Sequence[object]], Matrix], items: Sequence[Item], on_out_of_memory: Callable[[int], None]
) -> list[Outcome]:
    """Embed all items; when that fails, halve until only the items at fault are left.

    `on_out_of_memory` learns the tokens of every part of several items that did not fit. Raises DeviceLostError: then
    nothing can be retried. Every other exception ends up in an Outcome.
    """
    # Every request of a batch may have been cancelled between its choice and its start.
    pending = [tuple(range(len(items)))] if items else []
    outcomes: list[Outcome] = []
    while pending:
        positions = pending.pop()
        try:
            vectors = embed([items[position].payload for position in positions])
        except DeviceLostError:
            raise
        except Exception as error:
            if len(positions) == 1:
                outcomes.append(Outcome(positions, None, error))
                continue
            if isinstance(error, OutOfMemoryError):
                on_out_of_memory(sum(items[position].tokens for position in positions))
            middle = len(positions) // 2
            pending += [positions[middle:], positions[:middle]]
            continue
        outcomes += _finite(positions, vectors)
    return outcomes


def _finite(positions: tuple[int, ...], vectors: Matrix) -> list[Outcome]:
    """Numbers that are none must not become an answer: their items failed."""
    if np.isfinite(vectors).all():
        return [Outcome(positions, vectors)]
    good = np.isfinite(vectors).all(axis=1)
    outcomes = [Outcome(tuple(np.array(positions)[good].tolist()), vectors[good])] if good.any() else []
    return outcomes + [Outcome((positions[row],), None, NotFiniteError()) for row in np.flatnonzero(~good)]
