"""How far a long step of loading has come, in bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Advance:
    """`done` of `total` bytes of a step."""

    step: str
    done: int
    total: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    def __str__(self) -> str:
        done = min(self.done, self.total)
        return f"{self.step}: {int(100 * self.share)} %, {done / 1e6:.1f} of {self.total / 1e6:.1f} MB"


# Takes what is being done now: the words for it, or how far it has come. May be called from several threads.
Progress = Callable[[str | Advance], None]
# Takes bytes done since the last call.
Count = Callable[[int], None]


def uncounted(_: int) -> None:
    """Counts nothing."""


def counter(progress: Progress, step: str, total: int) -> Count:
    """Tells `progress` about a step of `total` bytes as they are counted."""
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(Advance(step, done, total))

    return count


def read_ahead(paths: Sequence[Path], step: str, progress: Progress) -> None:
    """Bring files into the page cache, telling how far that is.

    Loading maps them, and would wait for a disk or a network page by page, in no order and without a word. Here they
    are read once from front to back. What cannot be read is left to the loader, which says why.
    """
    try:
        count = counter(progress, step, sum(path.stat().st_size for path in paths))
        buffer = bytearray(_CHUNK)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(buffer):
                    count(size)
    except OSError:
        return
