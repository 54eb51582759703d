"""From token vectors to one vector per text, in float32 whatever the model computes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedding_runtime.engine.model import Pooling


def pool(
    hidden: Tensor, lengths: Sequence[int], modes: Sequence[Pooling], skipped: Sequence[int] | None = None
) -> Tensor:
    """hidden [tokens, size] packed, lengths of the texts in it -> [texts, size * len(modes)] float32.

    `skipped` is how many leading tokens of each text, those of its prompt, are left out. Formulas as in
    sentence-transformers: WeightedMean weighs token i of the text (from 1, skipped ones counted) by i; MeanSqrtLength
    divides the sum by the square root of the length; Cls and LastToken take the first and the last token.
    """
    hidden = hidden.float()
    sizes = torch.tensor(lengths, device=hidden.device)
    starts = sizes.cumsum(0) - sizes
    if not (skipped is not None and any(skipped)) and Pooling.WEIGHTED_MEAN not in modes:
        # Only those two need to know where in its text a token is.
        return torch.cat([_pool(hidden, sizes, sizes, mode) for mode in modes], dim=1)
    positions = torch.arange(len(hidden), device=hidden.device) - torch.repeat_interleave(starts, sizes)
    if skipped is not None and any(skipped):
        skips = torch.tensor(skipped, device=hidden.device)
        kept = positions >= torch.repeat_interleave(skips, sizes)
        hidden, positions = hidden[kept], positions[kept]
        sizes = sizes - skips
    return torch.cat([_pool(hidden, sizes, positions, mode) for mode in modes], dim=1)


def _pool(hidden: Tensor, sizes: Tensor, positions: Tensor, mode: Pooling) -> Tensor:
    ends = sizes.cumsum(0)
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
            weights = (positions + 1).float()
            total = torch.segment_reduce(weights, "sum", lengths=sizes)
            return torch.segment_reduce(hidden * weights[:, None], "sum", lengths=sizes) / total[:, None]
