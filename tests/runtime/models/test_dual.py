"""CLIP and SigLIP directories give what sentence-transformers gives for them, for texts and for images."""

from __future__ import annotations

import io
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_runtime.engine.model import (
    ImageInput,
    InputTooLongError,
    InputType,
    InvalidImageError,
    Matrix,
    Model,
    Truncation,
)
from embedding_runtime.errors import ModelLoadError
from embedding_runtime.models import dual_images
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.selftest import SelfTestError
from embedding_runtime.outputs.vectors import EmbeddingType, finish
from PIL import Image
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from tests.runtime.models.checkpoints import CORPUS, write_json
from tests.runtime.models.vl_checkpoints import picture, png, read_json

TEXTS = ["fox", "The quick brown fox jumps over the lazy dog.", "a vector is a list of numbers"]
IMAGES = [picture(40, 30, seed=1), picture(17, 90, seed=2), picture(28, 28, seed=3)]
_TEXT = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 7,
}  # fmt: skip


def tokenizer(*, padding: str) -> PreTrainedTokenizerFast:
    model = Tokenizer(BPE(unk_token="<|end|>"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    model.post_processor = processors.TemplateProcessing(
        "<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<|begin|>", eos_token="<|end|>", pad_token=padding, model_max_length=40,
        model_input_names=["input_ids"] if padding == "<pad>" else ["input_ids", "attention_mask"],
    )  # fmt: skip


def build(directory: Path, family: str, **text: Any) -> Path:
    """A plain Hugging Face directory with seeded weights."""
    if family == "clip":
        config = CLIPConfig(
            text_config={**_TEXT, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1, **text},
            vision_config=_VISION, projection_dim=20,
        )  # fmt: skip
        kind, processor, tokens = CLIPModel, CLIPImageProcessorPil, tokenizer(padding="<|end|>")
    else:
        config = SiglipConfig(text_config={**_TEXT, "pad_token_id": 2, **text}, vision_config=_VISION)
        kind, processor, tokens = SiglipModel, SiglipImageProcessorPil, tokenizer(padding="<pad>")
    torch.manual_seed(11)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0, 0.3 if parameter.dim() > 1 else 0.1)
    model.save_pretrained(directory)
    tokens.save_pretrained(directory)
    size = {"shortest_edge": 28} if family == "clip" else {"height": 28, "width": 28}
    options = {"crop_size": {"height": 28, "width": 28}} if family == "clip" else {}
    processor(size=size, **options).save_pretrained(directory)
    processor_class = "CLIPProcessor" if family == "clip" else "SiglipProcessor"
    write_json(directory / "processor_config.json", {"processor_class": processor_class})
    return directory


def sentence_transformer(directory: Path, family: str, *, normalize: bool) -> Path:
    """The same as sentence-transformers saves it today."""
    base = "sentence_transformers.base.modules"
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{base}.transformer.Transformer"}]
    if normalize:
        modules.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{base}.normalize.Normalize"})
    write_json(directory / "modules.json", modules)
    by = {name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"} for name in ("text", "image")}
    padding = {"processing_kwargs": {"text": {"padding": "max_length"}}} if family == "siglip" else {}
    write_json(directory / "sentence_bert_config.json", {
        "transformer_task": "feature-extraction", "modality_config": by, "module_output_name": "sentence_embedding",
    } | padding)  # fmt: skip
    return directory


def load(directory: Path, **options: Any) -> Model:
    request = LoadRequest(str(directory), cache=directory.parent / "cache", device="cpu", **options)
    return load_model(request, lambda message: None)


def vectors(model: Model, inputs: list[Any]) -> Matrix:
    raw = model.embed([item.payload for item in model.prepare(inputs, None, Truncation.NONE)])
    identity = model.identity
    kind = EmbeddingType.FLOAT
    return finish(raw, dimensions=identity.dimensions, normalized=identity.normalized, kind=kind)  # type: ignore[return-value]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_as_sentence_transformers(tmp_path: Path, family: str, normalize: bool) -> None:
    directory = sentence_transformer(build(tmp_path / "model", family), family, normalize=normalize)
    model = load(directory)
    oracle = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    expected = np.concatenate([oracle.encode(TEXTS), oracle.encode(IMAGES)])
    inputs = [*TEXTS, *(ImageInput(png(image)) for image in IMAGES)]
    together = vectors(model, inputs)
    np.testing.assert_allclose(together, expected, atol=2e-5 if normalize else 2e-4)
    alone = np.concatenate([vectors(model, [value]) for value in inputs])
    np.testing.assert_allclose(together, alone, atol=1e-6 if normalize else 1e-5)
    mixed = [5, 0, 3, 2, 1, 4]
    np.testing.assert_allclose(vectors(model, [inputs[i] for i in mixed]), together[mixed], atol=1e-5)
    identity = model.identity
    assert (identity.modalities, identity.normalized) == (("text", "image"), normalize)
    assert identity.dimensions == (20 if family == "clip" else 32)
    assert identity.max_input_tokens == 40


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_other_layouts_of_the_same_model(tmp_path: Path, family: str) -> None:
    """A plain directory is normalised; the module of old versions lies in a folder of its own. One space, one name."""
    plain = build(tmp_path / "plain", family)
    reference = load(plain)
    modern = load(sentence_transformer(Path(shutil.copytree(plain, tmp_path / "modern")), family, normalize=True))
    legacy = tmp_path / "legacy"
    shutil.copytree(plain, legacy / "0_CLIPModel")
    kind = "sentence_transformers.models"
    write_json(legacy / "modules.json", [
        {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": f"{kind}.CLIPModel"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{kind}.Normalize"},
    ])  # fmt: skip
    old = load(legacy)
    inputs = [TEXTS[0], ImageInput(png(IMAGES[0]))]
    for other in (modern, old):
        np.testing.assert_array_equal(vectors(other, inputs), vectors(reference, inputs))
        assert other.identity.fingerprint == reference.identity.fingerprint
    assert load(build(tmp_path / "wider", family, num_hidden_layers=1)).identity.fingerprint != old.identity.fingerprint


def test_clip_with_the_end_token_of_old_configurations(tmp_path: Path) -> None:
    """A configuration that says 2 means the token with the largest id, which ends every text of such tokenizers."""
    directory = build(tmp_path / "model", "clip", eos_token_id=2)
    model = load(sentence_transformer(directory, "clip", normalize=True))
    oracle = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    for text in TEXTS:
        np.testing.assert_allclose(vectors(model, [text]), oracle.encode([text]), atol=2e-5)


def test_limits_and_errors(tmp_path: Path) -> None:
    model = load(build(tmp_path / "model", "siglip"))
    text = "number " * 60
    with pytest.raises(InputTooLongError) as raised:
        model.prepare([ImageInput(png(IMAGES[0])), "fox", text], None, Truncation.NONE)
    assert (raised.value.index, raised.value.limit) == (2, 40)
    items = model.prepare([text, ImageInput(png(IMAGES[0]))], None, Truncation.END)
    assert [(item.tokens, item.tiles) for item in items] == [(40, 0), (16, 1)]
    with pytest.raises(InvalidImageError) as broken:
        model.prepare(["fox", ImageInput(b"no image")], None, Truncation.NONE)
    assert broken.value.index == 1


def test_grey_and_transparent_images(tmp_path: Path) -> None:
    model = load(build(tmp_path / "model", "clip"))
    for mode in ("L", "RGBA", "P"):
        buffer = io.BytesIO()
        image = IMAGES[0].convert(mode)
        image.save(buffer, "PNG")
        plain = Image.open(buffer).convert("RGB")
        np.testing.assert_array_equal(
            vectors(model, [ImageInput(buffer.getvalue())]), vectors(model, [ImageInput(png(plain))])
        )


def test_lengths_that_the_directory_says(tmp_path: Path) -> None:
    """query_length, document_length and processing_kwargs, as a text model's are honoured."""
    directory = sentence_transformer(build(tmp_path / "model", "clip"), "clip", normalize=True)
    settings = read_json(directory / "sentence_bert_config.json")
    text = "number " * 60

    def lengths(**said: Any) -> list[int]:
        write_json(directory / "sentence_bert_config.json", settings | said)
        model = load(directory)
        return [model.prepare([text], kind, Truncation.END)[0].tokens for kind in (None, *InputType)]

    assert lengths() == [40, 40, 40]
    assert lengths(query_length=9, document_length=21) == [40, 9, 21]
    assert lengths(max_seq_length=30, query_length=9) == [30, 9, 30]
    assert lengths(processing_kwargs={"text": {"max_length": 17}}) == [17, 17, 17]
    model = load(directory)
    oracle = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    cut = model.prepare([text], None, Truncation.END)
    np.testing.assert_allclose(model.embed([cut[0].payload])[0] / np.linalg.norm(model.embed([cut[0].payload])[0]),
                               oracle.encode([text])[0], atol=2e-5)  # fmt: skip
    write_json(
        directory / "sentence_bert_config.json", settings | {"processing_kwargs": {"images": {"do_resize": False}}}
    )
    with pytest.raises(ModelLoadError, match=r"processing_kwargs.images .* is not supported; .* preprocessor_config"):
        load(directory)


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("size", [(16384, 1), (1, 16384), (5000, 3), (3, 40), (1, 1), (2400, 2000)])
def test_images_of_any_shape(tmp_path: Path, family: str, size: tuple[int, int]) -> None:
    """One row of pixels, stretched as a whole, would be a gigabyte; the middle of it is enough."""
    directory = build(tmp_path / "model", family)
    model: Any = load(directory)
    image = Image.effect_noise((max(1, size[0] // 2), max(1, size[1] // 2)), 60).resize(size).convert("RGB")
    tracemalloc.start()
    try:
        item = model.prepare([ImageInput(png(image))], None, Truncation.NONE)[0]
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert item.payload.shape == (3, 28, 28)
    assert item.payload.nbytes == model.largest_image_bytes
    # The stock processor, told what every third dimension is for.
    kind = CLIPImageProcessorPil if family == "clip" else SiglipImageProcessorPil
    processor = kind.from_pretrained(directory)
    if size[0] * 28 // size[1] < 100_000 and size[1] * 28 // size[0] < 100_000:
        expected = processor(images=[image], return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        np.testing.assert_array_equal(item.payload, expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_only_the_middle_of_what_is_stretched(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done here, resizing gives the processor's pixels: exactly, or, of large stretchings, but for rounding."""
    kind = CLIPImageProcessorPil if family == "clip" else SiglipImageProcessorPil
    size = {"shortest_edge": 28} if family == "clip" else {"height": 28, "width": 28}
    options = {"crop_size": {"height": 28, "width": 28}} if family == "clip" else {}
    stock = kind(size=size, **options)
    processor = dual_images.ImageProcessor(stock, 28)
    generator = np.random.default_rng(5)
    for width, height in generator.integers(1, 200, (60, 2)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = processor(pixels, lambda: None)
        monkeypatch.setattr(dual_images, "_ORDINARY", 0)
        np.testing.assert_array_equal(processor(pixels, lambda: None), expected)
        monkeypatch.setattr(dual_images, "_STRETCHED", 0)
        difference = np.abs(processor(pixels, lambda: None) - expected)
        levels = difference * 255 * np.array(stock.image_std).reshape(3, 1, 1)
        assert levels.mean() < 1
        monkeypatch.undo()


def test_the_self_test_looks_at_images(tmp_path: Path) -> None:
    model: Any = load(build(tmp_path / "model", "clip"))
    model.prove()
    model._towers.module.vision_model.post_layernorm.weight.fill_(float("nan"))
    with pytest.raises(SelfTestError, match="image vectors are not finite"):
        model.prove()


@pytest.mark.parametrize(("family", "changes", "message"), [
    ("clip", {"do_center_crop": False}, "does not make 28 x 28 pixels"),
    ("clip", {"crop_size": {"height": 14, "width": 28}}, "does not make 28 x 28 pixels"),
    ("clip", {"size": {"shortest_edge": 14}}, "size.shortest_edge 14 is less than the 28 that are cut out"),
    ("siglip", {"size": {"height": 28, "width": 56}}, "does not make 28 x 28 pixels"),
    ("siglip", {"do_resize": False}, "does not make 28 x 28 pixels"),
])  # fmt: skip
def test_processors_that_do_not_fit(tmp_path: Path, family: str, changes: dict[str, Any], message: str) -> None:
    directory = build(tmp_path / "model", family)
    path = directory / "preprocessor_config.json"
    write_json(path, read_json(path) | changes)
    with pytest.raises(ModelLoadError, match=message):
        load(directory)


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
    (lambda d: (d / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    (lambda d: write_json(d / "sentence_bert_config.json", {"modality_config": {"image": {"method": "forward"}}}),
     "sentence_bert_config.json: image by 'forward' is not supported"),
    (lambda d: write_json(d / "modules.json", [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1", "type": "sentence_transformers.models.Pooling"}]), "must list a model of two towers first"),
])  # fmt: skip
def test_directories_that_cannot_be_served(tmp_path: Path, change: Any, message: str) -> None:
    directory = sentence_transformer(build(tmp_path / "model", "clip"), "clip", normalize=True)
    change(directory)
    with pytest.raises(ModelLoadError, match=message):
        load(directory)
