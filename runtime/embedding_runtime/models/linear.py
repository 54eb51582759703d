"""Linear layers whose weights are laid out once, at loading, the way the CPU's matrix kernels read them.

torch's own layer hands the library a plain matrix, which it rearranges on every call. Which library is fastest differs
from CPU to CPU by more than two times (`kernels.py` measures it), so that each is a kernel here. A packed weight
replaces the plain one: nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear


class Kernel(StrEnum):
    """What multiplies matrices: torch as it comes, a library with packed weights, or eight-bit integers."""

    PLAIN = "plain"
    ONEDNN = "oneDNN"
    MKL = "MKL"
    INT8 = "oneDNN int8"


class Linear(torch.nn.Module):  # type: ignore[misc]
    """x W' + b for x [..., in_features]; `with_gelu` applies the exact (erf) GELU to it, fused where that is faster."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias

    def with_gelu(self, x: Tensor) -> Tensor:
        return gelu(self(x))


class PlainLinear(Linear):
    """What torch.nn.Linear does; for every device and type of number."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class OneDnnLinear(Linear):
    """oneDNN with weights in its own blocked layout, which serves every number of rows equally well."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._run = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._packed, self.bias, "none", [], "")
        return out

    def with_gelu(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._packed, self.bias, "gelu", [], "none")
        return out


class MklLinear(Linear):
    """MKL with weights packed for few rows, the case in which packing pays; the layout serves other numbers too.

    torch.ops.mkl._mkl_linear uses the packed weight when it is told that it was packed for as many rows as x has, and
    the plain one otherwise. It is always told so, and the plain weight is only a shape without memory behind it.
    """

    _ROWS = 16

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, self._ROWS)
        self._shape = weight.new_empty(1).expand(weight.shape)
        self._run = torch.ops.mkl._mkl_linear.default

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._packed, self._shape, self.bias, x.numel() // self.in_features)
        return out


class Int8Linear(Linear):
    """Weights of eight bits with a scale per output channel, inputs of eight bits with a scale per token, sums in 32.

    With w = round(W / s), s = max|W| / 127 over a row of W, and likewise u = round(x / t) for a row of x, the product
    is t s (u w') + b. Inputs are stored as u + 128, because CPUs multiply unsigned by signed bytes; oneDNN takes the
    128 out again. A row's result does not depend on the other rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        weight = weight.float()
        self._scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / self._scales[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._run = torch.ops.onednn.qlinear_pointwise.default

    def forward(self, x: Tensor) -> Tensor:
        # The largest magnitude, without writing all magnitudes to memory first.
        largest = torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_())
        scale = largest.div_(127).clamp_min_(1e-30)
        unsigned = (x / scale).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        out: Tensor = self._run(
            unsigned, 1.0, 128, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out.mul_(scale)
        return out if self.bias is None else out.add_(self.bias)


_CLASSES: dict[Kernel, type[Linear]] = {
    Kernel.PLAIN: PlainLinear,
    Kernel.ONEDNN: OneDnnLinear,
    Kernel.MKL: MklLinear,
    Kernel.INT8: Int8Linear,
}


def make_linear(kernel: Kernel, weight: Tensor, bias: Tensor | None) -> Linear:
    """A layer over weight [out, in] and bias [out], which may be freed by the caller afterwards."""
    return _CLASSES[kernel](weight.detach(), None if bias is None else bias.detach())


def replace_linears(module: torch.nn.Module, make: Callable[[Tensor, Tensor | None], Linear]) -> int:
    """Put a layer of ours in the place of every torch.nn.Linear, one after the other, and count them.

    A layer whose weight is also another module's (a tied one) stays: packing it would hold it twice.
    """
    counts: dict[int, int] = {}
    for parent in module.modules():
        for parameter in parent.parameters(recurse=False):
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    replaced = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and counts[id(child.weight)] == 1:
                setattr(parent, name, make(child.weight, child.bias))
                # Its memory is given back before the next is packed, not when the last reference to the layer goes.
                child.weight = child.bias = None
                replaced += 1
    return replaced
