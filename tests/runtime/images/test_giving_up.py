"""Work on an image that nobody waits for any more ends soon: real decoding, waiting for a turn, cutting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from embedding_runtime.images import tiling
from embedding_runtime.images.decode import ImageLimits, decode, decoded
from embedding_runtime.images.tiling_rule import TileRule
from numpy.typing import NDArray
from PIL import Image

from tests.runtime.helpers import wait_until
from tests.runtime.images.files import encoded

LIMITS = ImageLimits()


class GivenUpError(Exception):
    """Nobody waits."""


class Calls:
    """A checkpoint that counts, and raises from the call number `last` on."""

    def __init__(self, last: float = float("inf")) -> None:
        self.last = last
        self.times: list[float] = []

    def __call__(self) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) >= self.last:
            raise GivenUpError


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def noise(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width // 4, height // 4), 70).resize((width, height))] * 3)


@pytest.mark.parametrize(("kind", "options"), [
    ("JPEG", {"quality": 90}), ("JPEG", {"progressive": True}), ("PNG", {"compress_level": 1}), ("GIF", {}),
    ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"quality": 60, "method": 0}), ("BMP", {}),
])  # fmt: skip
def test_a_real_decode_ends_where_it_is_given_up(kind: str, options: dict[str, Any]) -> None:
    data = encoded(noise(3000, 2700), kind, **options)
    calls = Calls()
    decode(data, LIMITS, calls)
    # At the least before opening, before each read of the file, and before each strip of the pixels.
    assert len(calls.times) >= 2700 // 256 + 2
    if kind in ("JPEG", "PNG", "GIF"):
        assert len(calls.times) > len(data) // (16 * 1024)
    middle = len(calls.times) // 2
    stopped = Calls(middle)
    with pytest.raises(GivenUpError):
        decode(data, LIMITS, stopped)
    assert len(stopped.times) <= middle + 1


def test_a_bomb_is_given_up_while_it_is_decoded() -> None:
    """Half a megabyte of PNG that becomes two hundred: cancelled early, it takes a fraction of the time."""
    data = encoded(Image.new("RGB", (8000, 8000)), "PNG", compress_level=1)
    assert len(data) < 2_000_000
    calls = Calls()
    whole = timed(lambda: decode(data, LIMITS, calls))
    stopped = Calls(len(calls.times) // 8)

    def given_up() -> None:
        with pytest.raises(GivenUpError):
            decode(data, LIMITS, stopped)

    assert timed(given_up) < whole / 2


def test_waiting_for_a_turn_is_given_up() -> None:
    """Of two large images one waits, without decoding, until the other's block ends or nobody waits for it."""
    data = encoded(Image.new("L", (8192, 2048)), "PNG")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with decoded(data, LIMITS):
            entered.set()
            assert leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert entered.wait(30)
        waiting = Calls(50)
        with pytest.raises(GivenUpError):
            decode(data, LIMITS, waiting)
        result: list[NDArray[np.uint8]] = []
        calls = Calls()
        second = threading.Thread(target=lambda: result.append(decode(data, LIMITS, calls)))
        second.start()
        wait_until(lambda: len(calls.times) > 20, 20, "waiting for the turn")
        assert not result
        leave.set()
        second.join(60)
        assert result[0].shape == (2048, 8192, 3)
    finally:
        leave.set()
        holder.join(60)


def test_cutting_is_given_up() -> None:
    pixels = np.array(noise(6000, 4000))
    rule = TileRule(side=512, most=6)
    calls = Calls()
    tiles = tiling.cut(pixels, rule, calls)
    # Rows and columns, of the grid and of the thumbnail, four million pixels at a time.
    assert len(calls.times) >= 10
    stopped = Calls(len(calls.times) // 2)
    with pytest.raises(GivenUpError):
        tiling.cut(pixels, rule, stopped)
    assert len(stopped.times) == len(calls.times) // 2
    assert tiles.shape == (7, 3, 512, 512)


@pytest.mark.parametrize(("width", "height"), [(700, 3), (3, 700), (511, 513), (1650, 1275), (16384, 16), (1, 1)])
@pytest.mark.parametrize(("rows", "columns"), [(512, 512), (1024, 1536), (32, 64)])
def test_in_pieces_pixels_are_the_same(
    width: int, height: int, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resized piece by piece as at once, to the last bit."""
    generator = np.random.default_rng(width)
    image = torch.from_numpy(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).permute(2, 0, 1)[None]
    options = {"mode": "bicubic", "align_corners": False, "antialias": True}
    expected = torch.nn.functional.interpolate(image, (rows, columns), **options)  # type: ignore[arg-type]
    monkeypatch.setattr(tiling, "_STEP", 5000)
    assert torch.equal(tiling.resize(image, rows, columns, lambda: None), expected)
