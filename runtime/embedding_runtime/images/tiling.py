"""Cutting an image into tiles, resized as NVIDIA's published processor does: 8-bit, antialiased, bicubic."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_runtime.images.tiling_rule import TileRule, choose_grid


def cut(pixels: NDArray[np.uint8], rule: TileRule) -> NDArray[np.uint8]:
    """RGB pixels [height, width, 3] -> tiles [tiles, 3, side, side], row by row, the thumbnail last."""
    height, width, _ = pixels.shape
    side = rule.side
    columns, rows = choose_grid(width, height, rule) if rule.dynamic else (1, 1)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    stretched = _resize(image, rows * side, columns * side)[0]
    tiles = stretched.unflatten(1, (rows, side)).unflatten(3, (columns, side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    if rule.dynamic and rule.thumbnail and len(tiles) > 1:
        tiles = torch.cat([tiles, _resize(image, side, side)])
    result: NDArray[np.uint8] = tiles.contiguous().numpy()
    return result


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """On 8-bit values: the same on floats is off by up to 25 grey levels, for want of the clipping in between."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    return torch.nn.functional.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
