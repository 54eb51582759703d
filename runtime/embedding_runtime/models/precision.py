"""Which numbers a model is computed with: what was asked for, or what this device is measurably made for.

The rule of Auto. On a CPU: BFloat16 when its matrix products run at least 1.5 times as fast as the best float32 ones
and the vectors of built-in texts keep a cosine of at least 0.9995 to those of float32; else Float32. On a GPU: BFloat16
under the same rule, else Float16 likewise, else Float32. Where memory does not allow a float32 copy beside the model,
Auto is Float32 on a CPU, and on a GPU the speed alone decides. Auto is never Int8: that changes vectors enough to be
somebody's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedding_runtime.engine.model import Matrix
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.kernels import Speed, choose
from embedding_runtime.models.linear import Kernel

FLOAT32, BFLOAT16, FLOAT16, INT8 = "float32", "bfloat16", "float16", "int8"
# How many times faster than float32 a half precision must be to be worth its rounding.
_WORTHWHILE = 1.5
# Least cosine to float32's vectors that is expected of a precision, and that Auto insists on.
EXPECTED_COSINE: Mapping[str, float] = {FLOAT32: 0.999999, BFLOAT16: 0.9995, FLOAT16: 0.9995, INT8: 0.99}
# Largest difference of a unit vector's numbers that another order of float32 sums explains.
FLOAT32_DIFFERENCE = 2e-5


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to compute a model. With `strict`, the expected accuracy decides whether it is used."""

    precision: str
    kernel: Kernel
    reason: str
    strict: bool = False
    stock: bool = False

    @property
    def dtype_name(self) -> str:
        """torch's type of the weights that are not eight bits."""
        return FLOAT32 if self.precision == INT8 else self.precision


@dataclass(frozen=True, slots=True)
class Difference:
    """How far unit vectors are from those of float32: the largest difference of a number, the least cosine."""

    max_absolute: float
    min_cosine: float


def compare(reference: Matrix, vectors: Matrix) -> Difference:
    """The difference of two sets of vectors [texts, size], each scaled to unit length."""
    first, second = (
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float64) for each in (reference, vectors)
    )
    return Difference(float(np.abs(first - second).max()), float((first * second).sum(axis=1).min()))


def is_accurate(precision: str, difference: Difference) -> bool:
    """Whether vectors are as close to float32's as the precision explains. False for what is not a number."""
    close = precision != FLOAT32 or difference.max_absolute <= FLOAT32_DIFFERENCE
    return close and difference.min_cosine >= EXPECTED_COSINE[precision]


def plans(
    wanted: str | None, device: str, speeds: Mapping[str, Mapping[Kernel, Speed]], *, comparable: bool
) -> tuple[Plan, ...]:
    """The ways to compute a model, the preferred one first; the others are for when it fails.

    `wanted` None is Auto. `speeds` holds the measured kernels of each precision this device has, float32 always;
    `comparable` says whether float32's vectors are at hand to be compared with. Raises DirectoryError for a precision
    that the device cannot compute or would compute more slowly than Float32.
    """
    kernels = {precision: choose(measured) for precision, measured in speeds.items()}
    if wanted is None:
        return _automatic(device, speeds, kernels, comparable)
    if wanted == INT8:
        if device != "cpu":
            raise DirectoryError("precision Int8 is for CPUs; use Auto, BFloat16 or Float16 on a GPU")
        if INT8 not in speeds:
            raise DirectoryError("precision Int8 is not available on this CPU; use Auto or Float32")
        return (Plan(INT8, Kernel.INT8, "asked for"),)
    if wanted == FLOAT16 and device == "cpu" and _gain(speeds, kernels, FLOAT16) < 1:
        raise DirectoryError("this CPU computes Float16 more slowly than Float32; use Auto, BFloat16 or Float32")
    fast = Plan(wanted, kernels.get(wanted, Kernel.PLAIN), "asked for", strict=wanted == FLOAT32)
    return (fast, Plan(wanted, Kernel.PLAIN, "asked for; the faster way failed here", stock=True))


def _automatic(
    device: str, speeds: Mapping[str, Mapping[Kernel, Speed]], kernels: Mapping[str, Kernel], comparable: bool
) -> tuple[Plan, ...]:
    found: list[Plan] = []
    for half in (BFLOAT16, FLOAT16) if device == "cuda" else (BFLOAT16,):
        gain = _gain(speeds, kernels, half)
        if gain >= _WORTHWHILE and (comparable or device == "cuda"):
            reason = f"Auto: its matrix products are {gain:.1f} times as fast as float32's here"
            found.append(Plan(half, kernels[half], reason, strict=comparable))
    gain = _gain(speeds, kernels, BFLOAT16)
    reason = f"Auto: bfloat16 is {gain:.1f} times as fast here, at least {_WORTHWHILE} is worth its rounding"
    if found:
        reason = "Auto: the faster precision is not accurate enough for this model"
    elif gain >= _WORTHWHILE:
        reason = "Auto: there is no memory to compare a faster precision with float32"
    found.append(Plan(FLOAT32, kernels[FLOAT32], reason, strict=True))
    found.append(Plan(FLOAT32, Kernel.PLAIN, f"{reason}; the faster way failed here", stock=True))
    return tuple(found)


def _gain(speeds: Mapping[str, Mapping[Kernel, Speed]], kernels: Mapping[str, Kernel], precision: str) -> float:
    """How many times as fast as float32 a precision multiplies large matrices; 0 when it cannot."""
    if precision not in speeds:
        return 0.0
    return speeds[FLOAT32][kernels[FLOAT32]].many / speeds[precision][kernels[precision]].many
