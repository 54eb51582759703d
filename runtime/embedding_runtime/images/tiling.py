"""Cutting an image into tiles, resized as NVIDIA's published processor does: 8-bit, antialiased, bicubic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_runtime.images.tiling_rule import TileRule, choose_grid

# Pixels that are resized between two checkpoints, and up to which one step is enough.
_STEP = 4_000_000


def cut(pixels: NDArray[np.uint8], rule: TileRule, checkpoint: Callable[[], None] = lambda: None) -> NDArray[np.uint8]:
    """RGB pixels [height, width, 3] -> tiles [tiles, 3, side, side], row by row, the thumbnail last.

    `checkpoint` is called every few milliseconds; what it raises ends the work.
    """
    height, width, _ = pixels.shape
    side = rule.side
    columns, rows = choose_grid(width, height, rule) if rule.dynamic else (1, 1)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    stretched = resize(image, rows * side, columns * side, checkpoint)[0]
    tiles = stretched.unflatten(1, (rows, side)).unflatten(3, (columns, side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    if rule.dynamic and rule.thumbnail and len(tiles) > 1:
        tiles = torch.cat([tiles, resize(image, side, side, checkpoint)])
    result: NDArray[np.uint8] = tiles.contiguous().numpy()
    return result


def resize(image: torch.Tensor, height: int, width: int, checkpoint: Callable[[], None]) -> torch.Tensor:
    """[1, 3, h, w] -> [1, 3, height, width], of bytes.

    On 8-bit values: the same on floats is off by up to 25 grey levels, for want of the clipping in between. torch
    resizes rows first, then columns, rounding in between, so that both can be done piece by piece with the same result;
    a piece at a time takes little memory beside the image and leaves time for checkpoints.
    """
    if tuple(image.shape[-2:]) == (height, width):
        return image
    if image.shape[-2] * image.shape[-1] <= _STEP:
        return _interpolate(image, height, width, checkpoint)
    if image.shape[-1] != width:
        rows = max(1, _STEP // image.shape[-1])
        image = torch.cat([_interpolate(part, part.shape[-2], width, checkpoint) for part in image.split(rows, -2)], -2)
    if image.shape[-2] != height:
        columns = max(1, _STEP // image.shape[-2])
        parts = image.split(columns, -1)
        image = torch.cat([_interpolate(part, height, part.shape[-1], checkpoint) for part in parts], -1)
    return image


def _interpolate(image: torch.Tensor, height: int, width: int, checkpoint: Callable[[], None]) -> torch.Tensor:
    checkpoint()
    return torch.nn.functional.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
