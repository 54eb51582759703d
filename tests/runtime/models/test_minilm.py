"""The real all-MiniLM-L6-v2 gives the published vectors, alone and in company."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from embedding_runtime.engine.model import InputTooLongError, InputType, Interruptible, Model, Truncation
from embedding_runtime.outputs.vectors import EmbeddingType, finish

from tests.runtime.helpers import GOLDEN, MINILM

pytestmark = pytest.mark.model


def unit(model: Model, texts: list[str], truncation: Truncation = Truncation.NONE) -> np.ndarray:
    items = model.prepare(texts, None, truncation)
    vectors = model.embed([item.payload for item in items])
    return finish(vectors, dimensions=384, normalized=True, kind=EmbeddingType.FLOAT)


def test_vectors_are_the_published_ones(minilm: Model) -> None:
    for text, expected in GOLDEN.items():
        np.testing.assert_allclose(unit(minilm, [text])[0][:4], expected, atol=1e-6)


def test_similarity_of_the_cards_sentences(minilm: Model) -> None:
    first, second = unit(minilm, ["This is an example sentence", "Each sentence is converted"])
    assert float(first @ second) == pytest.approx(0.404559, abs=1e-6)


def test_tokens_count_special_ones(minilm: Model) -> None:
    assert [item.tokens for item in minilm.prepare(["What is NVIDIA?"], InputType.QUERY, Truncation.NONE)] == [8]


def test_company_changes_nothing(minilm: Model) -> None:
    texts = [" ".join(["word"] * n) for n in (1, 200, 3, 3, 77, 30, 3, 250)] + list(GOLDEN)
    together = unit(minilm, texts)
    alone = np.concatenate([unit(minilm, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_identity(minilm: Model) -> None:
    identity = minilm.identity
    assert (identity.dimensions, identity.max_input_tokens, identity.pooling) == (384, 256, "Mean")
    assert identity.normalized
    hashes = {file.path: file.sha256 for file in identity.files}
    assert hashes["model.safetensors"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_long_text_is_refused_with_its_length(minilm: Model) -> None:
    with pytest.raises(InputTooLongError) as caught:
        minilm.prepare(["short", "word " * 400], None, Truncation.NONE)
    assert (caught.value.index, caught.value.length, caught.value.limit) == (1, 402, 256)


def test_truncation_keeps_the_start_or_the_end(minilm: Model) -> None:
    start, end = "alpha " * 254, "omega " * 254
    np.testing.assert_allclose(unit(minilm, [start + end], Truncation.END), unit(minilm, [start]), atol=1e-6)
    np.testing.assert_allclose(unit(minilm, [start + end], Truncation.START), unit(minilm, [end]), atol=1e-6)


def test_sentence_transformers_agrees(minilm: Model) -> None:
    import sentence_transformers

    peer = sentence_transformers.SentenceTransformer(str(MINILM), device="cpu", local_files_only=True)
    texts = [
        *GOLDEN,
        "Ünïcödé 漢字 \U0001f600",
        "[SEP] and [MASK] in the text",
        "word " * 250,
        " padded ",
        "a\x00b",
        "tab\tnewline\n",
    ]
    np.testing.assert_allclose(unit(minilm, texts, Truncation.END), peer.encode(texts), atol=2e-6)
    long = ["one two three " * 200]
    np.testing.assert_allclose(unit(minilm, long, Truncation.END), peer.encode(long), atol=2e-6)


def test_a_batch_can_be_interrupted_between_layers_and_nobody_notices(minilm: Model) -> None:
    assert isinstance(minilm, Interruptible)
    bulk = [item.payload for item in minilm.prepare(["word " * 60, "another text"], None, Truncation.NONE)]
    query = [item.payload for item in minilm.prepare(["What is NVIDIA?"], None, Truncation.NONE)]
    expected, expected_query = minilm.embed(bulk), minilm.embed(query)
    answers: list[np.ndarray] = []
    inside = False

    def interrupt() -> None:
        nonlocal inside
        if not inside:
            inside = True
            answers.append(minilm.embed(query))
            inside = False

    calls: list[Callable[[], None]] = [interrupt]
    # The hooks stay on the model that other tests share: they must find nothing to do afterwards.
    minilm.between_steps(lambda: calls[0]() if calls else None)
    try:
        vectors = minilm.embed(bulk)
    finally:
        calls.clear()
    assert len(answers) == 6
    np.testing.assert_array_equal(vectors, expected)
    for answer in answers:
        np.testing.assert_array_equal(answer, expected_query)


def test_equal_tokens_have_equal_keys_whatever_was_asked_for(minilm: Model) -> None:
    plain, again, other = minilm.prepare(["A text", "a text", "a text."], InputType.QUERY, Truncation.END)
    passage = minilm.prepare(["a text"], InputType.PASSAGE, Truncation.NONE)[0]
    assert plain.key == again.key == passage.key
    assert other.key != plain.key
