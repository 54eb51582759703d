"""Attention over packed sequences: no padding, no mask, one mechanism for every model with the attention interface.

The texts of a batch lie end to end in one row of tokens. Because the name registered here is not in transformers' mask
registry, the model builds no mask; this function keeps the texts apart instead, by what `packed` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "embedding_runtime_packed"
# Tokens of a text below and above which bfloat16 attention on a CPU is computed otherwise.
_SHORT, _LONG = 24, 1024


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours of equal length in a packed row: `count` texts of `length` tokens from token `begin` on."""

    begin: int
    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Where the texts of a packed row are. `cumulative` holds their boundaries as int32 on the device, `longest` is the
    largest length. `causal` texts look back only."""

    runs: tuple[Run, ...]
    cumulative: Tensor
    longest: int
    causal: bool = False


def pack(lengths: Sequence[int], device: torch.device, *, causal: bool = False) -> Packed:
    """The description of texts of these lengths, end to end. Neighbours of equal length share one attention call."""
    runs, begin = [], 0
    for length, group in groupby(lengths):
        count = sum(1 for _ in group)
        runs.append(Run(begin, count, length))
        begin += count * length
    bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return Packed(tuple(runs), to_device(bounds, device), max(lengths), causal)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; to a GPU without waiting for the copy, from memory that the GPU reads itself."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


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

    `sliding_window` is transformers' value, one more than the tokens seen to each side. Whether texts look back only is
    not the module's own flag: several classes call themselves causal whatever their configuration says.
    """
    window = None if sliding_window is None else sliding_window - 1
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend(query, key, value, packed, scaling, window)[None], None


def attend(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, scaling: float | None = None, window: int | None = None
) -> Tensor:
    """query [tokens, heads, size], key and value [tokens, key heads, size] -> [tokens, heads, size].

    Each text attends to itself only, `window` tokens to each side (None: all). `scaling` defaults to 1 / sqrt(size).
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _varlen(query, key, value, packed, scaling, window)
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, dim=1), value.repeat_interleave(repeat, dim=1)
    parts = [_attend_run(query, key, value, run, packed.causal, scaling, window) for run in packed.runs]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _attend_run(
    query: Tensor, key: Tensor, value: Tensor, run: Run, causal: bool, scaling: float | None, window: int | None
) -> Tensor:
    def texts(tensor: Tensor) -> Tensor:
        part = tensor[run.begin : run.begin + run.count * run.length]
        return part.unflatten(0, (run.count, run.length)).transpose(1, 2)

    mask = None
    if window is not None and run.length > window + 1:
        mask = _window_mask(run.length, window, causal, query.device)
    arguments = (texts(query), texts(key), texts(value))
    if query.dtype == torch.bfloat16 and query.device.type == "cpu" and mask is None and not causal:
        out = _attend_bfloat16(*arguments, scaling)
    else:
        out = scaled_dot_product_attention(*arguments, attn_mask=mask, scale=scaling, is_causal=causal and mask is None)
    return out.transpose(1, 2).flatten(0, 1)


def _attend_bfloat16(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """[texts, heads, tokens, size] on a CPU: as three plain operators, or in float32 for short texts.

    torch's fused CPU kernel is slower than either in bfloat16, except for texts so long that the weights [tokens,
    tokens] of all heads leave the cache. Measured; see docs/performance.md.
    """
    length, size = query.shape[2:]
    if length < _SHORT:
        return scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=scaling).to(query.dtype)
    if length > _LONG:
        return scaled_dot_product_attention(query, key, value, scale=scaling)
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(size**-0.5 if scaling is None else scaling)
    return torch.matmul(torch.softmax(scores, -1), value)


def _window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    seen = distance.abs() <= window
    return seen & (distance >= 0) if causal else seen


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    side = -1 if window is None else window
    out: Tensor = varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        packed.cumulative,
        packed.cumulative,
        packed.longest,
        packed.longest,
        scale=scaling,
        window_size=(side, 0 if packed.causal else side),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out
