"""What a llama_nemotron_vl directory may look like, what it may not, and what in it changes the vectors."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_runtime.api.image_work import ImageWork, ImageWorkLimits
from embedding_runtime.engine.model import (
    ImageInput,
    Input,
    InputTooLongError,
    InputType,
    InvalidImageError,
    Truncation,
)
from embedding_runtime.errors import FingerprintMismatchError, ModelLoadError
from embedding_runtime.models.selftest import SelfTestError
from embedding_runtime.models.vl_model import TokenSequence
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.runtime.images.files import encoded
from tests.runtime.models.checkpoints import write_json
from tests.runtime.models.test_vl_oracle import load, vectors
from tests.runtime.models.vl_checkpoints import LANGUAGE, VISION, build, picture, png, read_json

INPUTS = ["a vector", ImageInput(png(picture(60, 40))), ImageInput(png(picture(20, 20)), "fox")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("vl"))


@pytest.fixture
def directory(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def embed(directory: Path, **options: Any) -> Any:
    model = load(directory, **options)
    return vectors(model, model.prepare(INPUTS, InputType.PASSAGE, Truncation.NONE))


def edit(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


def weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")


def test_forms_of_the_same_model(checkpoint: Path, directory: Path, tmp_path: Path) -> None:
    """Both forms of the vision tower's names, with and without its unused head, in shards and as .bin."""
    reference = load(checkpoint)
    expected = embed(checkpoint)
    flat = build(tmp_path / "flat", nested=False)
    weights(flat, lambda tensors: drop(tensors, ".head."))
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    index = {}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        shard = list(shards)[number % 2]
        shards[shard][name] = tensor
        index[name] = shard
    for name, part in shards.items():
        save_file(part, directory / name)
    write_json(directory / "model.safetensors.index.json", {"weight_map": index})
    pickled = build(tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(tensors, pickled / "pytorch_model.bin")
    for other in (flat, directory, pickled):
        np.testing.assert_array_equal(embed(other), expected)
        assert load(other).identity.fingerprint == reference.identity.fingerprint


def test_stored_as_bfloat16(tmp_path: Path, checkpoint: Path) -> None:
    half = embed(build(tmp_path / "half", dtype=torch.bfloat16))
    assert (half * embed(checkpoint)).sum(axis=1).min() > 0.999
    computed = embed(checkpoint, precision="bfloat16")
    assert (computed * embed(checkpoint)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("change", [
    {"max_input_tiles": 4}, {"use_thumbnail": False}, {"dynamic_image_size": False}, {"passage_prefix": "document:"},
    {"norm_type": "imagenet"}, {"system_message": "be brief "}, {"min_input_tiles": 2},
])  # fmt: skip
def test_numbers_come_from_the_files(checkpoint: Path, directory: Path, change: dict[str, Any]) -> None:
    """processor_config.json wins over config.json; what either says moves vectors and fingerprint."""
    edit(directory / "processor_config.json", **change)
    assert np.abs(embed(directory) - embed(checkpoint)).max() > 1e-4
    assert load(directory).identity.fingerprint != load(checkpoint).identity.fingerprint


def test_what_is_null_is_absent(checkpoint: Path, directory: Path) -> None:
    edit(directory / "config.json", select_layer=None, downsample_ratio=None)
    assert np.abs(embed(directory) - embed(checkpoint)).max() <= 1e-6


def tiles(directory: Path) -> int:
    return load(directory).prepare([ImageInput(png(picture(300, 20)))], None, Truncation.NONE)[0].tiles


def test_config_is_asked_only_without_a_processor_file(directory: Path) -> None:
    """What processor_config.json leaves out has its class's default, as in NVIDIA's code, whatever config.json says."""
    processor = read_json(directory / "processor_config.json")
    assert read_json(directory / "config.json")["max_input_tiles"] == 2
    write_json(directory / "processor_config.json", {k: v for k, v in processor.items() if "tiles" not in k})
    assert tiles(directory) == 7
    (directory / "processor_config.json").unlink()
    assert tiles(directory) == 3
    edit(directory / "config.json", max_input_tiles=None, max_dynamic_patch=4)
    assert tiles(directory) == 5


@pytest.mark.parametrize(("said", "limits"), [
    ({"q_max_length": 12, "p_max_length": 30}, (12, 30)), ({"q_max_length": 12, "p_max_length": None}, (12, 4096)),
    ({"q_max_length": None, "p_max_length": 30}, (4096, 30)),
])  # fmt: skip
def test_lengths_of_queries_and_passages(directory: Path, said: dict[str, Any], limits: tuple[int, int]) -> None:
    """Each has its own, as in NVIDIA's processor; what the file leaves open is the tokenizer's."""
    edit(directory / "processor_config.json", **said)
    model = load(directory)
    assert model.identity.max_input_tokens == max(limits)
    text = "number " * 60
    for kind, limit in ((InputType.QUERY, limits[0]), (None, limits[0]), (InputType.PASSAGE, limits[1])):
        cut = model.prepare([text], kind, Truncation.END)[0]
        assert cut.tokens == min(limit, model.prepare([text], kind, Truncation.END)[0].tokens)
        if limit < 100:
            assert cut.tokens == limit
            with pytest.raises(InputTooLongError) as raised:
                model.prepare([text], kind, Truncation.NONE)
            assert raised.value.limit == limit
    chosen = load(directory, max_input_tokens=25)
    assert [chosen.prepare([text], kind, Truncation.END)[0].tokens for kind in InputType] == [25, 25]


def test_a_limit_that_leaves_no_room_for_an_image(checkpoint: Path) -> None:
    """Said when loading, with the least that is enough; with that much a square fits, and nothing else."""
    with pytest.raises(ModelLoadError) as raised:
        load(checkpoint, max_input_tokens=15)
    found = re.search(r"an image takes at least (\d+) tokens, .* --max-input-tokens \(.*\) to \1 or more",
                      str(raised.value))  # fmt: skip
    assert found is not None
    least = int(found[1])
    with pytest.raises(ModelLoadError, match="an image takes at least"):
        load(checkpoint, max_input_tokens=least - 1)
    model = load(checkpoint, max_input_tokens=least)
    assert model.prepare([ImageInput(png(picture(20, 20)))], None, Truncation.NONE)[0].tokens == least
    with pytest.raises(InputTooLongError) as long:
        model.prepare([ImageInput(png(picture(300, 20)))], None, Truncation.END)
    assert long.value.fixed > least


def test_the_self_test_looks_at_images(checkpoint: Path) -> None:
    """Weights that spoil images only are found out when the model is asked to prove itself again."""
    model: Any = load(checkpoint)
    model.prove()
    norm = model._model.projector[0]
    good = norm.weight.clone()
    for spoil, message in ((float("nan"), "not finite"), (0.0, "different images get the same vector")):
        norm.weight.fill_(spoil)
        with pytest.raises(SelfTestError, match=message):
            model.prove()
        norm.weight.copy_(good)
    model.prove()


def test_nobody_waits_for_an_image_any_more(checkpoint: Path) -> None:
    """A real decode on the image threads ends soon after its request is given up, and its thread is free."""
    model = load(checkpoint)
    image = Image.new("RGB", (8000, 6000), "white")
    large = ImageInput(encoded(image, compress_level=1))
    work = ImageWork(ImageWorkLimits(workers=1))

    async def prepare(timeout: float | None) -> float:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(timeout):
                await work.prepare(model, [large], None, Truncation.NONE)
        except TimeoutError:
            assert timeout is not None
        return time.perf_counter() - began

    async def both() -> tuple[float, float]:
        return await prepare(None), await prepare(0.05)

    whole, given_up = asyncio.run(both())
    # The cancellation waits for the thread.
    assert given_up < whole / 2


def test_what_an_image_holds(checkpoint: Path) -> None:
    model: Any = load(checkpoint)
    item = model.prepare([ImageInput(png(picture(300, 200)))], None, Truncation.NONE)[0]
    assert item.tiles == 7
    assert item.payload.tiles.nbytes == model.largest_image_bytes == 7 * 3 * 32 * 32


def test_prompts_and_pooling_of_the_user(checkpoint: Path) -> None:
    chosen = load(checkpoint, passage_prompt="passage: ", query_prompt="q: ")
    assert chosen.identity.prompts == {"query": "q: ", "passage": "passage: "}
    np.testing.assert_array_equal(embed(checkpoint, passage_prompt="passage: "), embed(checkpoint))
    assert np.abs(embed(checkpoint, pooling="LastToken") - embed(checkpoint)).max() > 1e-3


def test_another_vector_space_is_refused(checkpoint: Path) -> None:
    with pytest.raises(FingerprintMismatchError):
        load(checkpoint, expected_fingerprint=f"sha256:{'0' * 64}")


def drop(tensors: dict[str, torch.Tensor], part: str) -> None:
    for name in [name for name in tensors if part in name]:
        del tensors[name]


def to_eight_bits(tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def with_score(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[f"model.{name}"] = tensors.pop(name)
    tensors["score.weight"] = torch.zeros(1, 40)


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda d: edit(d / "config.json", quantization_config={"quant_method": "modelopt"}), "quantised (FP8) checkpoint"),
    (lambda d: write_json(d / "hf_quant_config.json", {}), "use the bfloat16 one, the same name without -fp8"),
    (lambda d: weights(d, to_eight_bits), "quantised (FP8) checkpoint"),
    (lambda d: weights(d, with_score), "is a reranker"),
    (lambda d: weights(d, lambda t: drop(t, "mlp1.3.bias")),
     "1 weights are missing, the first is 'mlp1.3.bias'"),
    (lambda d: weights(d, lambda t: drop(t, "language_model.norm.weight")),
     "1 weights are missing, the first is 'language_model.norm.weight'"),
    (lambda d: weights(d, lambda t: drop(t, "vision_model.vision_model.post_layernorm.bias")),
     "the first is 'vision_model.post_layernorm.bias'"),
    (lambda d: weights(d, lambda t: t.update(extra=torch.zeros(1))), "1 weights are not part of the model"),
    (lambda d: weights(d, lambda t: t.update({"mlp1.1.weight": torch.zeros(40, 90)})), "do not fit"),
    (lambda d: edit(d / "processor_config.json", image_size=64), "image_size is not the 32"),
    (lambda d: edit(d / "config.json", downsample_ratio=0.3), "do not fit"),
    (lambda d: edit(d / "config.json", img_context_token_id=7), "img_context_token_id is 7"),
    (lambda d: edit(d / "config.json", img_context_token_id=None), "img_context_token_id is 128258"),
    (lambda d: edit(d / "config.json", pooling="colbert"), "pooling 'colbert' is not one of"),
    (lambda d: edit(d / "config.json", pooling=None, llm_config=LANGUAGE | {"pooling": None}), "pooling None"),
    (lambda d: edit(d / "config.json", vision_config=VISION | {"model_type": "radio"}), "is not siglip_vision_model"),
    (lambda d: edit(d / "config.json", llm_config=LANGUAGE | {"architectures": ["LlamaForCausalLM"]}),
     "is no LlamaBidirectionalModel"),
    (lambda d: edit(d / "processor_config.json", template="chat"), "template 'chat' is not known"),
    (lambda d: edit(d / "processor_config.json", num_image_token=256), "num_image_token is not the 16"),
    (lambda d: edit(d / "processor_config.json", max_input_tiles=0), "images cannot have 1 to 0 tiles"),
    (lambda d: edit(d / "processor_config.json", norm_type="none"), "norm_type 'none' is not one of"),
    (lambda d: edit(d / "config.json", llm_config=None), "config.json has no llm_config"),
    (lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-9]), "is truncated"),
    (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_refused(directory: Path, change: Callable[[Path], Any], message: str) -> None:
    change(directory)
    with pytest.raises(ModelLoadError) as raised:
        load(directory)
    assert message in str(raised.value)


@pytest.mark.parametrize("atomic", [True, False])
def test_placeholders_in_texts_are_text(tmp_path: Path, atomic: bool) -> None:
    """Their tokens are those of a tokenizer that never heard of images, and an image beside them stays one."""
    directory = build(tmp_path / "model", atomic=atomic, extra=("<image>",))
    model = load(directory)
    strings = read_json(directory / "tokenizer.json")
    strings["added_tokens"] = [token for token in strings["added_tokens"] if token["id"] <= 333]
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(json.dumps(strings))
    for text in ("<image>", "a <image> b", "<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>" * 9, "<img> </img>"):
        payload = model.prepare([text], InputType.PASSAGE, Truncation.NONE)[0].payload
        assert isinstance(payload, TokenSequence)
        assert payload.tiles is None
        assert payload.ids.tolist() == plain.encode(f"passage: {text}").ids
        item = model.prepare([ImageInput(png(picture(20, 20)), text)], None, Truncation.NONE)[0]
        seen = item.payload
        assert isinstance(seen, TokenSequence)
        assert item.tiles == 1
        tail = plain.encode(f" {text}", add_special_tokens=False).ids
        assert seen.ids[-len(tail) :].tolist() == tail
        assert (seen.ids == model._settings.image_token).sum() == 16  # type: ignore[attr-defined]


def test_truncation_beside_an_image(checkpoint: Path) -> None:
    """An image of one tile is 16 tokens; what of the text is kept is its start, or its end."""
    model = load(checkpoint, max_input_tokens=40)
    image = png(picture(20, 20))
    text = "one two three four five six seven eight nine ten eleven twelve"
    with pytest.raises(InputTooLongError) as raised:
        model.prepare(["a", ImageInput(image, text)], None, Truncation.NONE)
    whole = load(checkpoint).prepare([ImageInput(image, text)], None, Truncation.NONE)[0].payload
    assert isinstance(whole, TokenSequence)
    assert (raised.value.index, raised.value.length, raised.value.limit) == (1, len(whole.ids), 40)
    kept = {}
    for truncation in (Truncation.END, Truncation.START):
        item = model.prepare([ImageInput(image, text)], None, truncation)[0]
        payload = item.payload
        assert isinstance(payload, TokenSequence)
        assert item.tokens == len(payload.ids) == 40
        assert payload.image_begins == whole.image_begins
        head = whole.image_begins + 16
        assert payload.ids[:head].tolist() == whole.ids[:head].tolist()
        kept[truncation] = payload.ids
    assert kept[Truncation.END].tolist() == whole.ids[:40].tolist()
    assert kept[Truncation.START][-10:].tolist() == whole.ids[-10:].tolist()
    # Seven tiles are 112 tokens: no truncation makes them fit, and nothing of them is decoded.
    for truncation in Truncation:
        with pytest.raises(InputTooLongError) as large:
            model.prepare([ImageInput(png(picture(60, 40)), "a")], None, truncation)
        assert (large.value.limit, large.value.length) == (40, 112 + len(whole.ids[:head]) - 16 + 2)


def test_images_that_cannot_be_used(checkpoint: Path) -> None:
    model = load(checkpoint, max_image_bytes=500)
    for data, reason in ((b"no image", "is not a PNG"), (png(picture(40, 40)), "at most 500 are allowed")):
        with pytest.raises(InvalidImageError) as raised:
            model.prepare(["a", ImageInput(data)], None, Truncation.NONE)
        assert raised.value.index == 1
        assert reason in raised.value.reason


def test_an_image_never_reaches_into_its_neighbours(checkpoint: Path) -> None:
    """A file whose pixels lie otherwise than its header says gave more tokens than had been kept free for it."""
    model = load(checkpoint)
    turned = encoded(Image.new("L", (3600, 1200)), "TIFF", compression="tiff_lzw",
                     tiffinfo={700: b'<x tiff:Orientation="6"/>'})  # fmt: skip
    inputs: list[Input] = [ImageInput(turned), "a vector", ImageInput(png(picture(60, 40)))]
    items = model.prepare(inputs, None, Truncation.NONE)
    payload = items[0].payload
    assert isinstance(payload, TokenSequence)
    assert payload.tiles is not None
    assert len(payload.tiles) == items[0].tiles
    together = vectors(model, items)
    for number, item in enumerate(items):
        assert np.abs(together[number] - vectors(model, [item])[0]).max() <= 2e-5
    for tiles, begins in (
        (payload.tiles[:-1], payload.image_begins), (np.concatenate([payload.tiles] * 2), payload.image_begins),
        (payload.tiles, payload.image_begins + 1), (None, 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"tokens of an image do not fit \d+ places for them"):
            model.embed([TokenSequence(payload.ids, tiles, begins), items[1].payload])


def test_the_vision_tower_is_fed_together(checkpoint: Path) -> None:
    """Tiles of several items go through it in one call, texts beside them."""
    model = load(checkpoint)
    tower = model._model  # type: ignore[attr-defined]
    calls: list[int] = []
    handle = tower.vision.register_forward_pre_hook(
        lambda module, arguments, options: calls.append(len(options["pixel_values"])), with_kwargs=True
    )
    try:
        items = model.prepare(
            ["a", *[ImageInput(png(picture(20, 20, seed=n))) for n in range(3)], "b"], None, Truncation.NONE
        )
        model.embed([item.payload for item in items])
    finally:
        handle.remove()
    assert calls == [3]


def test_a_query_in_the_midst_of_a_page(checkpoint: Path) -> None:
    """Between any two layers of either tower another input may be embedded; neither vector changes."""
    model: Any = load(checkpoint)
    page = model.prepare([ImageInput(png(picture(60, 40)))], None, Truncation.NONE)[0].payload
    query = model.prepare(["a vector"], InputType.QUERY, Truncation.NONE)[0].payload
    expected = model.embed([page]), model.embed([query])
    between: list[Any] = []
    busy = False

    def interrupt() -> None:
        nonlocal busy
        if not busy:
            busy = True
            between.append(model.embed([query]))
            busy = False

    model.between_steps(interrupt)
    np.testing.assert_array_equal(model.embed([page]), expected[0])
    # Three layers see seven tiles in two calls, two layers read.
    assert len(between) == 3 * 2 + 2
    for vector in between:
        np.testing.assert_array_equal(vector, expected[1])
