"""Every family gives what its stock transformers model gives for one text at a time, eager, float32."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_runtime.engine.model import Model, Truncation
from embedding_runtime.models.architecture import PACKED
from embedding_runtime.models.backbone import filling, similar
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.outputs.vectors import EmbeddingType, finish
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

from tests.runtime.models.checkpoints import FAMILIES, TEXTS, Family, add_modules, build, family


def vectors(model: Model, texts: tuple[str, ...]) -> NDArray[np.float32]:
    payloads = [item.payload for item in model.prepare(texts, None, Truncation.NONE)]
    raw = model.embed(payloads)
    normalized = model.identity.normalized
    return finish(raw, dimensions=model.identity.dimensions, normalized=normalized, kind=EmbeddingType.FLOAT)  # type: ignore[return-value]


def load(directory: Path, **options: Any) -> Model:
    chosen = {"device": "cpu", "precision": "float32"} | options
    request = LoadRequest(str(directory), cache=directory / "cache", **chosen)
    return load_model(request, lambda message: None)


POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "lasttoken": lambda states: states[-1],
    "max": lambda states: states.max(0).values,
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / len(states) ** 0.5,
    "weightedmean": lambda states: (
        sum(  # type: ignore[return-value]
            (i * state for i, state in enumerate(states, 1)), torch.zeros(states.shape[1])
        )
        / sum(range(1, len(states) + 1))
    ),
}


@torch.no_grad()
def oracle(stock: Any, directory: Path, texts: tuple[str, ...], pooling: str) -> NDArray[np.float32]:
    """Stock transformers, one text at a time, no padding, pooling written out."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        states = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        pooled = POOLINGS[pooling](states)
        rows.append((pooled / pooled.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.name)
def test_family(tmp_path: Path, kind: Family) -> None:
    stock = build(tmp_path, kind)
    add_modules(tmp_path, kind.pooling)
    expected = oracle(stock, tmp_path, TEXTS, kind.pooling)
    model = load(tmp_path)
    together = vectors(model, TEXTS)
    np.testing.assert_allclose(together, expected, atol=2e-6)
    alone = np.concatenate([vectors(model, (text,)) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    # Batches of other texts side by side, as the engine's workers run them.
    starts = [turn % len(TEXTS) for turn in range(12)]
    with ThreadPoolExecutor(2) as workers:
        for start, rows in zip(starts, workers.map(lambda start: vectors(model, TEXTS[start:]), starts), strict=True):
            np.testing.assert_allclose(rows, together[start:], atol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([5], [(0, 1)]),
        ([3, 3, 3, 3], [(0, 4)]),
        ([8, 9, 10], [(0, 3)]),
        ([3, 4, 60, 64, 300], [(0, 2), (2, 4), (4, 5)]),
    ],
)
def test_what_is_padded_is_padded_with_its_like(lengths: list[int], groups: list[tuple[int, int]]) -> None:
    assert [(group.start, group.stop) for group in similar(lengths)] == groups


def test_every_packed_family_is_tried() -> None:
    tried = {kind.name.replace("-bidirectional", "").replace("-causal", "") for kind in FAMILIES}
    assert {name.removesuffix("_text") for name in PACKED} <= tried


def test_the_text_part_of_embedding_gemma2(tmp_path: Path) -> None:
    """The directory holds a vision tower too; text goes through the language model alone, as in the whole model."""
    kind = family("embedding_gemma2")
    vision = {
        "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    special = ("boi", "eoi", "image", "video", "boa", "audio")
    ids: dict[str, Any] = {f"{name}_token_id": 390 + n for n, name in enumerate(special)}
    text = build(tmp_path / "text", kind).config
    whole = EmbeddingGemma2Config(text_config=text, vision_config=vision, eoa_token_index=399, **ids)
    whole._attn_implementation = "eager"
    torch.manual_seed(8)
    stock = EmbeddingGemma2Model(whole).eval()
    stock.save_pretrained(tmp_path)
    kind.tokenizer().save_pretrained(tmp_path)
    add_modules(tmp_path)
    model = load(tmp_path)
    assert (model.identity.dimensions, model.identity.modalities) == (24, ("text",))
    np.testing.assert_allclose(vectors(model, TEXTS), oracle(stock, tmp_path, TEXTS, "mean"), atol=2e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling(tmp_path: Path, pooling: str) -> None:
    stock = build(tmp_path, FAMILIES[0])
    add_modules(tmp_path, pooling)
    np.testing.assert_allclose(vectors(load(tmp_path), TEXTS), oracle(stock, tmp_path, TEXTS, pooling), atol=2e-6)


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (16, 16), (64, 64), (65, 80), (80, 80), (511, 512), (512, 512)])
def test_large_batches_have_few_different_sizes(tokens: int, rows: int) -> None:
    assert tokens + filling(tokens) == rows
