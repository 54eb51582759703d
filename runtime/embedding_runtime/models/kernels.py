"""Which matrix kernel this CPU runs fastest, found by running them: names and flags of CPUs do not tell.

On an AMD CPU with AVX-512, MKL computes float32 at less than half of oneDNN's speed; on an Intel one it wins for few
rows. Both are in torch, and torch's own linear layer takes MKL everywhere.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_runtime.models.linear import Kernel, Linear, make_linear

# A lone query and a batch; weights small enough to be measured in a moment, large enough to be of the usual kind.
_ROWS = (16, 128)
_SHAPES = ((1152, 384), (384, 1536))
_ROUNDS = 5
# How much faster than torch as it comes a kernel must be to be taken: less is noise.
_WORTHWHILE = 1.05
# Largest relative difference (of the largest number) from torch's own result that rounding explains.
_ROUNDING: Mapping[torch.dtype, float] = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
_EIGHT_BITS = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds a kernel needs for the measured products: those of few rows and those of many."""

    few: float
    many: float


def choose(speeds: Mapping[Kernel, Speed]) -> Kernel:
    """The kernel with the least product of both times relative to PLAIN's, so that neither case is sold for the other.

    PLAIN unless another is faster by a margin that noise does not explain.
    """
    plain = speeds[Kernel.PLAIN]

    def gain(kernel: Kernel) -> float:
        speed = speeds[kernel]
        return math.sqrt(plain.few / speed.few * plain.many / speed.many)

    best = max(speeds, key=gain)
    return best if gain(best) >= _WORTHWHILE else Kernel.PLAIN


def measure(dtype: torch.dtype, kernels: Sequence[Kernel] | None = None, device: str = "cpu") -> dict[Kernel, Speed]:
    """The speed of every kernel that this device and torch have for a type of number, interleaved.

    A CPU is measured by its time on one thread, which others on the machine disturb least. A kernel that raises or
    whose results differ from torch's by more than rounding (eight bits: by more than that) is left out.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            if device == "cuda":
                return _measure(dtype, (Kernel.PLAIN,), device, _cuda_clock)
            return _measure(dtype, kernels or candidates(dtype), device, time.thread_time)
    finally:
        torch.set_num_threads(threads)


def _cuda_clock() -> float:
    """The time when everything asked of the GPU so far is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


def candidates(dtype: torch.dtype) -> tuple[Kernel, ...]:
    """The kernels worth trying for a type of number, PLAIN always."""
    found = [Kernel.PLAIN]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found.append(Kernel.ONEDNN)
    if dtype == torch.float32 and torch.backends.mkl.is_available() and torch._C.has_mkl:
        found.append(Kernel.MKL)
    return tuple(found)


def _measure(
    dtype: torch.dtype, kernels: Sequence[Kernel], device: str, clock: Callable[[], float]
) -> dict[Kernel, Speed]:
    many = _ROWS[1] if device == "cpu" else 64 * _ROWS[1]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).mul_(0.05).to(device, dtype) for shape in _SHAPES]
    inputs = {
        rows: [torch.randn(rows, size, generator=generator).to(device, dtype) for _, size in _SHAPES]
        for rows in (_ROWS[0], many)
    }
    layers: dict[Kernel, list[Linear]] = {}
    for kernel in kernels:
        try:
            made = [make_linear(kernel, weight, None) for weight in weights]
            if all(_agrees(kernel, *case) for xs in inputs.values() for case in zip(made, xs, weights, strict=True)):
                layers[kernel] = made
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            _log.debug("%s cannot multiply %s here: %s", kernel, dtype, error)
    best = {(kernel, rows): float("inf") for kernel in layers for rows in inputs}
    for _ in range(_ROUNDS):
        for kernel, rows in best:
            began = clock()
            for layer, x in zip(layers[kernel], inputs[rows], strict=True):
                layer(x)
            best[kernel, rows] = min(best[kernel, rows], clock() - began)
    return {kernel: Speed(best[kernel, _ROWS[0]], best[kernel, many]) for kernel in layers}


def _agrees(kernel: Kernel, layer: Linear, x: Tensor, weight: Tensor) -> bool:
    expected = torch.nn.functional.linear(x, weight).float()
    difference = (layer(x).float() - expected).abs().max().item()
    allowed = _EIGHT_BITS if kernel is Kernel.INT8 else _ROUNDING[x.dtype]
    return bool(difference <= allowed * expected.abs().max().item())
