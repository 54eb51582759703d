"""The device, divided among batches that are computed side by side.

On a CPU several batches with a thread each get more done than one batch with all threads: between its products a batch
does hundreds of small steps during which its other threads wait, and threads of their own never wait for each other. A
lone batch may have all of them, as far as its products are large enough to be worth dividing.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, Protocol

# More interpreters of small steps than this would mostly wait for Python's lock.
_MOST_WORKERS = 8
# Multiplications of one product that a thread must have for itself, or waking it costs more than it does.
_WORTHWHILE = 10_000_000


class Shares(Protocol):
    """What a model's Parallel (engine/model.py) is made of."""

    @property
    def workers(self) -> int: ...

    def take(self, parts: int, tokens: int) -> int: ...


def threads_for(tokens: int, available: int, layer_size: int) -> int:
    """How many threads are worth it for products of [tokens, n] and [n, m] with n x m = `layer_size`, at least one."""
    return max(1, min(available, tokens * layer_size // _WORTHWHILE))


class CpuShares:
    """`threads` divided among `workers`, those that are left over one by one. `layer_size` is how many weights a usual
    linear layer of the model has."""

    def __init__(self, threads: int, layer_size: int, workers: int | None = None) -> None:
        self._threads = threads
        self._layer_size = layer_size
        self.workers = min(threads, workers or _MOST_WORKERS)
        self._local = threading.local()
        self._places = itertools.count()

    def take(self, parts: int, tokens: int) -> int:
        import torch

        part, left = divmod(self._threads, self.workers)
        own = part + (self._place() < left)
        available = self._threads if parts == self.workers else own + (parts - 1) * part
        threads = threads_for(tokens, available, self._layer_size)
        # Holds for the calling thread: each keeps a number, and a team of helpers, of its own.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return 1 if threads <= own else min(parts, 1 - (own - threads) // part)

    def _place(self) -> int:
        """The calling thread's place among the workers."""
        if not hasattr(self._local, "place"):
            self._local.place = next(self._places) % self.workers
        return int(self._local.place)


class CudaShares:
    """One stream for every worker, so that a GPU computes one batch while the next is handed to it."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or 1
        self._local = threading.local()

    def take(self, parts: int, tokens: int) -> int:
        if self.workers > 1 and not hasattr(self._local, "stream"):
            import torch

            self._local.stream = torch.cuda.Stream()
            torch.cuda.set_stream(self._local.stream)
        return 1


def shares(device: str, workers: int | None, config: Any, *, concurrent: bool = True) -> Shares:
    """The shares of a device for a transformer with this configuration; `concurrent` False: one batch at a time."""
    import torch

    wanted = workers if concurrent else 1
    if device == "cuda":
        return CudaShares(wanted)
    return CpuShares(torch.get_num_threads(), layer_size(config), wanted)


def layer_size(config: Any) -> int:
    """How many weights a usual linear layer of a transformer has: hidden size times the mean of it and the wide one."""
    hidden = int(getattr(config, "hidden_size", 0) or getattr(config, "dim", 0) or 384)
    wide = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * hidden
    return hidden * (hidden + int(wide)) // 2
