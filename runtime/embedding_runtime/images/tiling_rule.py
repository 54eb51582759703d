"""Into how many square tiles an image is cut: the rule of NVIDIA's Nemotron and Eagle models.

An image is stretched to the grid of tiles that keeps most of its area and proportions, and cut; a small copy of the
whole follows when there is more than one tile (nemo-automodel 0.7, `llama_nemotron_vl/processor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

# Above this share of the image's area a grid gains nothing by having more pixels.
_ENOUGH_AREA = 0.6


@dataclass(frozen=True, slots=True)
class TileRule:
    """How images are cut: the tiles' side in pixels, how many the grid may have (a thumbnail is one more), whether
    there is a thumbnail, and whether images are cut at all."""

    side: int
    most: int
    least: int = 1
    thumbnail: bool = True
    dynamic: bool = True

    @property
    def largest(self) -> int:
        """The most tiles an image can become."""
        if not self.dynamic:
            return 1
        return self.most + (1 if self.thumbnail and self.most > 1 else 0)


def choose_grid(width: int, height: int, rule: TileRule) -> tuple[int, int]:
    """Columns and rows for an image of this size.

    The best grid has the largest min(area of the grid / area of the image, 0.6) times the smaller of the two quotients
    of their proportions. The first of equals wins, and equals happen: the order is by area and, among grids of one
    area, that in which CPython iterates over a set filled in this order, because the reference sorts such a set.
    """
    grids = {
        (columns, rows)
        for area in range(rule.least, rule.most + 1)
        for columns in range(1, area + 1)
        for rows in range(1, area + 1)
        if rule.least <= columns * rows <= rule.most
    }
    proportion = width / height

    def score(grid: tuple[int, int]) -> float:
        columns, rows = grid
        area = (columns * rows * rule.side * rule.side) / (width * height)
        aspect = columns / rows
        return min(area, _ENOUGH_AREA) * min(aspect / proportion, proportion / aspect)

    return max(sorted(grids, key=lambda grid: grid[0] * grid[1]), key=score)


def count_tiles(width: int, height: int, rule: TileRule) -> int:
    """How many tiles `cut` gives for an image of this size."""
    if not rule.dynamic:
        return 1
    columns, rows = choose_grid(width, height, rule)
    return columns * rows + (1 if rule.thumbnail and columns * rows > 1 else 0)
