"""From token vectors to one vector per text, in float32 whatever the model computes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedding_runtime.models.layout import Pooling


def pool(hidden: Tensor, lengths: Sequence[int], modes: Sequence[Pooling]) -> Tensor:
    """hidden [tokens, size] packed, lengths of the texts in it -> [texts, size * len(modes)] float32.

    Formulas as in sentence-transformers: WeightedMean weighs token i (from 1) by i; MeanSqrtLength divides the sum by
    the square root of the length; LastToken and Cls take the last and the first token.
    """
    hidden = hidden.float()
    sizes = torch.tensor(lengths, device=hidden.device)
    ends = sizes.cumsum(0)
    return torch.cat([_pool(hidden, sizes, ends, mode) for mode in modes], dim=1)


def _pool(hidden: Tensor, sizes: Tensor, ends: Tensor, mode: Pooling) -> Tensor:
    match mode:
        case Pooling.CLS:
            return hidden[ends - sizes]
        case Pooling.LAST_TOKEN:
            return hidden[ends - 1]
        case Pooling.MAX:
            return torch.segment_reduce(hidden, "max", lengths=sizes)
        case Pooling.MEAN:
            return torch.segment_reduce(hidden, "sum", lengths=sizes) / sizes[:, None]
        case Pooling.MEAN_SQRT_LENGTH:
            return torch.segment_reduce(hidden, "sum", lengths=sizes) / sizes[:, None].float().sqrt()
        case Pooling.WEIGHTED_MEAN:
            starts = torch.repeat_interleave(ends - sizes, sizes)
            weights = (torch.arange(len(hidden), device=hidden.device) - starts + 1).float()
            total = torch.segment_reduce(weights, "sum", lengths=sizes)
            return torch.segment_reduce(hidden * weights[:, None], "sum", lengths=sizes) / total[:, None]
