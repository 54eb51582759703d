"""Models of several towers, computed with the matrix kernel that this CPU runs fastest, and the proof that only their
speed has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from embedding_runtime.engine.model import Computation, Matrix
from embedding_runtime.models.kernels import choose, measure
from embedding_runtime.models.linear import Kernel, Linear, make_linear, replace_linears
from embedding_runtime.models.precision import Difference, compare, is_accurate

_log = logging.getLogger(__name__)
T = TypeVar("T")


def accelerate_towers(
    load: Callable[[], T],
    modules: Callable[[T], Sequence[torch.nn.Module]],
    embed: Callable[[T], Matrix],
    precision: str,
    device: torch.device,
    kernel: Kernel | None = None,
) -> tuple[T, Computation]:
    """What `load` gives, its linear layers laid out for the fastest kernel, and how it is computed.

    `embed` gives vectors that every layer has a part in; where they differ by more than rounding, or where packing
    fails, the towers are loaded again and left as they are. `kernel` None means the one that is measured fastest.
    """
    towers = load()
    if device.type != "cpu":
        return towers, _describe(precision, device, Kernel.PLAIN, None)
    kernel = kernel or choose(measure(getattr(torch, precision)))
    if kernel is Kernel.PLAIN:
        return towers, _describe(precision, device, kernel, None)
    reference = embed(towers)
    try:
        with torch.inference_mode():
            for module in modules(towers):
                replace_linears(module, _maker(kernel))
        difference = compare(reference, embed(towers))
    except (RuntimeError, AttributeError, TypeError) as error:
        _log.warning("%s cannot multiply this model's matrices: %s", kernel, " ".join(str(error).split())[:200])
    else:
        if is_accurate(precision, difference):
            _log.info("cpu computes %s with %s; largest difference from the plain layers: %.1e", precision, kernel,
                      difference.max_absolute)  # fmt: skip
            return towers, _describe(precision, device, kernel, difference)
        _log.warning("%s is too far from the plain layers with this model (%.1e)", kernel, difference.max_absolute)
    del towers
    return load(), _describe(precision, device, Kernel.PLAIN, None)


def _maker(kernel: Kernel) -> Callable[[torch.Tensor, torch.Tensor | None], Linear]:
    return lambda weight, bias: make_linear(kernel, weight, bias)


def _describe(precision: str, device: torch.device, kernel: Kernel, difference: Difference | None) -> Computation:
    """Difference from the plain layers of the same precision: with float32, from float32."""
    known = difference if precision == "float32" else None
    return Computation(
        device=device.type,
        precision=precision,
        reason="a model with images: Float32 on a CPU and BFloat16 on a GPU, unless asked otherwise",
        kernel=str(kernel),
        threads=torch.get_num_threads(),
        max_difference=None if known is None else known.max_absolute,
        min_cosine=None if known is None else known.min_cosine,
    )
