"""llama_nemotron_vl gives what NVIDIA's own class gave: values recorded by oracle/record_vl.py, within 2e-5."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_runtime.engine.model import ImageInput, Input, InputType, Item, Matrix, Model, Truncation
from embedding_runtime.images.tiling import cut
from embedding_runtime.images.tiling_rule import TileRule, choose_grid, count_tiles
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.vl_model import TokenSequence
from embedding_runtime.outputs.vectors import EmbeddingType, finish
from numpy.typing import NDArray

from tests.runtime.models.oracle.cases import CASES, FILES, SIZES, VARIANTS, Case
from tests.runtime.models.vl_checkpoints import build, digest, file_of, picture, png, read_json

ORACLE = Path(__file__).parent / "oracle"
RECORDED = read_json(ORACLE / "vl.json")
TOLERANCE = 2e-5


def load(directory: Path, **options: Any) -> Model:
    request = LoadRequest(str(directory), cache=directory / "cache", device="cpu", **options)
    return load_model(request, lambda message: None)


def vectors(model: Model, items: Sequence[Item]) -> Matrix:
    raw = model.embed([item.payload for item in items])
    return finish(raw, dimensions=model.identity.dimensions, normalized=True, kind=EmbeddingType.FLOAT)  # type: ignore[return-value]


def pixels(model: Model, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the vision tower is given for these tiles."""
    tower = model._model  # type: ignore[attr-defined]
    seen = []
    handle = tower.vision.register_forward_pre_hook(
        lambda module, arguments, options: seen.append(options["pixel_values"].numpy()), with_kwargs=True
    )
    try:
        tower.see(tiles)
    finally:
        handle.remove()
    return np.concatenate(seen)


def prepare(model: Model, number: int, case: Case) -> Item:
    value: Input = ImageInput(png(picture(*case.size, seed=number)), case.text) if case.size else case.text
    return model.prepare([value], InputType(case.kind), Truncation.NONE)[0]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Model]:
    directory = build(tmp_path_factory.mktemp(request.param), **VARIANTS[request.param])
    assert digest(directory) == RECORDED["checkpoints"][request.param]["digest"], (
        "the checkpoint is not the one that was recorded: see oracle/record_vl.py on how to record again"
    )
    return request.param, load(directory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tokens_tiles_and_vector(variant: tuple[str, Model], case: Case) -> None:
    name, model = variant
    arrays = np.load(ORACLE / f"vl_{name}.npz")
    recorded = RECORDED["checkpoints"][name][case.name]
    item = prepare(model, CASES.index(case), case)
    payload = item.payload
    assert isinstance(payload, TokenSequence)
    assert payload.ids.tolist() == recorded["ids"]
    assert (item.tokens, item.tiles) == (len(recorded["ids"]), recorded["tiles"])
    if case.size:
        assert payload.tiles is not None
        np.testing.assert_array_equal(
            pixels(model, payload.tiles[[0, -1]]), arrays[f"{case.name}: first and last tile"]
        )
    assert np.abs(vectors(model, [item])[0] - arrays[case.name]).max() <= TOLERANCE


def test_a_mixed_batch(variant: tuple[str, Model]) -> None:
    """Everything in one packed batch, against each alone and against NVIDIA's padded batch of the passages."""
    name, model = variant
    arrays = np.load(ORACLE / f"vl_{name}.npz")
    items = [prepare(model, number, case) for number, case in enumerate(CASES)]
    together = vectors(model, items)
    alone = np.stack([arrays[case.name] for case in CASES])
    assert np.abs(together - alone).max() <= TOLERANCE
    if "together" not in arrays:
        return
    rows = [number for number, case in enumerate(CASES) if case.kind == "passage"]
    assert np.abs(together[rows] - arrays["together"]).max() <= TOLERANCE
    backwards = vectors(model, items[::-1])[::-1]
    assert np.abs(together - backwards).max() <= 1e-6


def test_the_table_of_tilings() -> None:
    rule = TileRule(side=512, most=6)
    assert len(SIZES) >= 40
    table = [[w, h, *choose_grid(w, h, rule), count_tiles(w, h, rule)] for w, h in SIZES]
    assert table == RECORDED["tilings"]


def test_tiles_are_cut_row_by_row() -> None:
    rule = TileRule(side=4, most=6)
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    assert choose_grid(12, 8, rule) == (3, 2)
    tiles = cut(pixels, rule)
    assert tiles.shape == (7, 3, 4, 4)
    np.testing.assert_array_equal(tiles[4], pixels[4:8, 4:8].transpose(2, 0, 1))
    assert len(cut(pixels, TileRule(side=4, most=6, thumbnail=False))) == 6
    assert len(cut(pixels, TileRule(side=4, most=6, dynamic=False))) == 1


def test_how_pixels_become_numbers(variant: tuple[str, Model]) -> None:
    """Every value a pixel can have, as it reaches the vision tower."""
    name, model = variant
    values = np.arange(256, dtype=np.uint8).repeat(4).reshape(1, 1, 32, 32).repeat(3, 1)
    seen = pixels(model, values)[0, 1].flatten()[::4].tolist()
    assert (seen == RECORDED["pixels"]) == (name != "other")


@pytest.fixture(scope="module")
def atomic(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(build(tmp_path_factory.mktemp("atomic"), **VARIANTS["atomic"]))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(atomic: Model, name: str) -> None:
    """Tiles of a file in every mode and format, to the last bit as NVIDIA's processor makes them."""
    data = file_of(*FILES[name])
    recorded = RECORDED["files"][name]
    assert hashlib.sha256(data).hexdigest() == recorded["file"], "Pillow writes other files: see oracle/record_vl.py"
    payload = atomic.prepare([ImageInput(data)], None, Truncation.NONE)[0].payload
    assert isinstance(payload, TokenSequence)
    assert payload.tiles is not None
    seen = [hashlib.sha256(tile.tobytes()).hexdigest() for tile in pixels(atomic, payload.tiles)]
    assert len(seen) == len(recorded["tiles"])
    assert (seen == recorded["tiles"]) == (name != "16 bits of grey")
