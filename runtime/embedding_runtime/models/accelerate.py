"""From a stock transformers model to one that computes the same faster, with the proof that it is the same."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

import torch

from embedding_runtime.engine.model import Computation, Matrix
from embedding_runtime.models import bert
from embedding_runtime.models.architecture import LINEAR
from embedding_runtime.models.backbone import Backbone
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.kernels import Speed, measure
from embedding_runtime.models.linear import Kernel, make_linear, replace_linears
from embedding_runtime.models.precision import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    Difference,
    Plan,
    compare,
    is_accurate,
)

_log = logging.getLogger(__name__)


def accelerate(backbone: Backbone, plan: Plan) -> Backbone:
    """The backbone as planned: its numbers converted, its linear layers and, for BERT's relatives, its encoder ours.

    Takes the weights of the stock module, which cannot be used any more.
    """
    module, architecture = backbone.module, backbone.architecture
    if plan.precision != INT8:
        module = module.to(getattr(torch, plan.dtype_name))
    if plan.stock:
        return dataclasses.replace(backbone, module=module)

    def make(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
        return make_linear(plan.kernel, weight, bias)

    with torch.inference_mode():
        if bert.is_supported(architecture.family, architecture.config):
            module = bert.BertEncoder(module, make)
        elif plan.kernel is not Kernel.PLAIN and architecture.family in LINEAR:
            replace_linears(module, make)
    return dataclasses.replace(backbone, module=module)


def measure_speeds(wanted: str | None, device: str) -> Mapping[str, Mapping[Kernel, Speed]]:
    """The speeds that deciding about a precision takes. A GPU has its library for matrices; only precisions differ."""
    if device == "cuda" and wanted is not None:
        return {FLOAT32: {Kernel.PLAIN: Speed(1, 1)}}
    names = (FLOAT32, wanted) if wanted else (FLOAT32, BFLOAT16, FLOAT16) if device == "cuda" else (FLOAT32, BFLOAT16)
    speeds: dict[str, Mapping[Kernel, Speed]] = {}
    for name in dict.fromkeys(names):
        if name == INT8:
            measured = measure(torch.float32, (Kernel.PLAIN, Kernel.INT8))
            if Kernel.INT8 in measured:
                speeds[name] = measured
        else:
            speeds[name] = measure(getattr(torch, name), device=device)
    return speeds


def realise(
    plans: Sequence[Plan],
    load: Callable[[torch.dtype], Backbone],
    embed: Callable[[Backbone], Matrix],
    *,
    comparable: bool,
) -> tuple[Backbone, Computation]:
    """The first plan that works, and what it is.

    `embed` gives the vectors of built-in texts; `comparable` says whether a float32 model fits into memory for a
    moment. Raises DirectoryError when no plan works.
    """
    failure: str = "no plan"
    for plan in plans:
        backbone = load(torch.float32 if comparable else getattr(torch, plan.dtype_name))
        device = backbone.device.type
        try:
            reference = embed(backbone) if comparable else None
            backbone = accelerate(backbone, plan)
            difference = None if reference is None else compare(reference, embed(backbone))
        except (RuntimeError, AttributeError, TypeError) as error:
            failure = f"{plan.precision} with {plan.kernel} failed: {' '.join(str(error).split())[:200]}"
            _log.warning("%s", failure)
            continue
        accurate = difference is None or is_accurate(plan.precision, difference)
        if not accurate:
            failure = (
                f"{plan.precision} with {plan.kernel} is too far from float32 on built-in texts ({_say(difference)})"
            )
            _log.warning("%s", failure)
        if accurate or not plan.strict:
            _log.info("%s computes %s with %s (%s); against float32: %s", device, plan.precision, plan.kernel,
                      plan.reason, _say(difference))  # fmt: skip
            return backbone, Computation(
                device=device,
                precision=plan.precision,
                reason=plan.reason,
                kernel="stock" if plan.stock else str(plan.kernel),
                threads=torch.get_num_threads(),
                max_difference=None if difference is None else difference.max_absolute,
                min_cosine=None if difference is None else difference.min_cosine,
            )
    raise DirectoryError(failure)


def _say(difference: Difference | None) -> str:
    if difference is None:
        return "not measured, for want of memory"
    return f"largest difference {difference.max_absolute:.1e}, least cosine {difference.min_cosine:.6f}"
