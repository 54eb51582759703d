"""The benchmark of images runs, through a real server, and its figures fit together."""

from __future__ import annotations

import math

import pytest

from bench.images import CHECKPOINTS, ImageFigures, ImageReport, Picture, draw, measure_images


def test_a_short_run() -> None:
    report = measure_images(2, 1, {"tiny": CHECKPOINTS["tiny"]}, [Picture("square", (64, 64), "PNG")])
    assert [(each.checkpoint, each.picture, each.tiles) for each in report.figures] == [("tiny", "square", 1)]
    for each in report.figures:
        assert each.tokens > 256 * each.tiles
        assert 0 < each.images_per_second < 1000
        assert each.tokens_per_second == each.tokens * each.images_per_second
        assert math.isclose(sum(each.shares.values()), 1)
        assert min(each.decode, each.tiling, each.vision) > 0


def test_the_table_and_the_file() -> None:
    figures = ImageFigures("tiny", "a page", 1800, 7, 2.5, decode=0.1, tiling=0.1, vision=0.2, language=0.6)
    report = ImageReport(24, (figures,))
    assert report.table().splitlines()[-1] == "| tiny | a page | 7 | 1800 | 2.50 | 4500 | 10% | 10% | 20% | 60% |"
    assert len({line.count("|") for line in report.table().splitlines()}) == 1
    saved = report.as_json()["figures"][0]
    assert saved["shares"]["language"] == pytest.approx(0.6)
    assert saved["tokens_per_second"] == 4500


def test_no_two_images_are_alike() -> None:
    """The server computes equal ones once."""
    picture = Picture("square", (64, 64), "PNG")
    assert len({draw(picture, seed) for seed in range(9)}) == 9
    assert draw(picture, 1) == draw(picture, 1)
