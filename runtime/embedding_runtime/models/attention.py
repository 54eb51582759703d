"""Attention over packed sequences: no padding, no mask, one mechanism for every model with the attention interface.

The texts of a batch lie end to end in one row of tokens. Because the name registered here is not in transformers' mask
registry, the model builds no mask; this function keeps the texts apart instead, by the boundaries in `packed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "embedding_runtime_packed"


@dataclass(frozen=True, slots=True)
class Packed:
    """Boundaries of the texts in a packed row: `bounds[i]:bounds[i + 1]` is text i. `cumulative` is the same as int32
    on the device; `longest` the largest length. `causal` texts look back only."""

    bounds: tuple[int, ...]
    cumulative: Tensor
    longest: int
    causal: bool = False


def register() -> None:
    """Make the function known to transformers under NAME."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, tokens, size], key and value [1, key heads, tokens, size] -> [1, tokens, heads, size].

    `sliding_window` is transformers' value, one more than the tokens seen to each side.
    """
    # Not the module's own flag: several classes call themselves causal whatever their configuration says.
    causal = packed.causal
    window = None if sliding_window is None else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _varlen(query, key, value, packed, scaling, causal, window), None
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, dim=1), value.repeat_interleave(repeat, dim=1)
    parts = [
        _scaled_dot_product(query, key, value, begin, count, length, scaling, causal, window)
        for begin, count, length in _equal_runs(packed.bounds)
    ]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], None


def _equal_runs(bounds: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbours of equal length as (first token, number of texts, length): each is one batched call."""
    begin = 0
    for length, group in groupby(end - start for start, end in pairwise(bounds)):
        count = sum(1 for _ in group)
        yield begin, count, length
        begin += count * length


def _scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, begin: int, count: int, length: int,
    scaling: float | None, causal: bool, window: int | None,
) -> Tensor:  # fmt: skip
    def texts(tensor: Tensor) -> Tensor:
        part = tensor[0, :, begin : begin + count * length]
        return part.unflatten(1, (count, length)).transpose(0, 1)

    windowed = window is not None and length > window + 1
    mask = _window_mask(length, window, causal, query.device) if windowed and window is not None else None
    out = scaled_dot_product_attention(
        texts(query), texts(key), texts(value), attn_mask=mask, scale=scaling, is_causal=causal and mask is None
    )
    return out.transpose(1, 2).reshape(1, count * length, query.shape[1], -1)


def _window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    seen = distance.abs() <= window
    return seen & (distance >= 0) if causal else seen


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    sides = (-1 if window is None else window, 0 if causal else (-1 if window is None else window))
    out = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1).contiguous(),
        value[0].transpose(0, 1).contiguous(),
        packed.cumulative,
        packed.cumulative,
        packed.longest,
        packed.longest,
        scale=scaling,
        window_size=sides,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.unsqueeze(0)
