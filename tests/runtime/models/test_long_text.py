"""Texts of many windows give the very tokens of one tokenisation, whatever the tokenizer, at a bounded cost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import numpy as np
import pytest
from embedding_runtime.engine.model import InputTooLongError, Truncation
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.long_text import EDGE, WINDOW, LongText
from embedding_runtime.models.tokenizer import TextTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, processors, trainers
from tokenizers.models import BPE

from tests.runtime.helpers import MINILM
from tests.runtime.models.checkpoints import CORPUS, byte_level, unigram, wordpiece

PIECES = (
    "the quick brown fox ", "vector", " ", "\n\n", "    ", "a", "0123456789", "Ünïcödé ", "日本語の文章です。",
    "e\u0301", "\U0001f937\U0001f3fd\u200d", "https://example.org/a?b=c&d=e ", "[SEP]", "<s>", "query: ",
    "W4nTq8/3kZp+", "-" * 70, "\t", "\u00a0", "don't ", "x" * 40,
)  # fmt: skip


def sentencepiece() -> Tokenizer:
    """As Llama 2's and Gemma's: one BPE over the whole string, nothing splits it first."""
    tokenizer = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>"]))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def backend(make: Callable[[], object]) -> Tokenizer:
    tokenizer: Tokenizer = make().backend_tokenizer  # type: ignore[attr-defined]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def minilm() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


TOKENIZERS = {
    "wordpiece": lambda: backend(wordpiece),
    "byte level": lambda: backend(byte_level),
    "unigram": lambda: backend(unigram),
    "sentencepiece": sentencepiece,
    "minilm": minilm,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def long(seed: int, characters: int) -> str:
    """Random stretches of the same few pieces, as documents have, and long runs of a single one."""
    rng = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < characters:
        some = rng.sample(PIECES, rng.randint(1, 6))
        stretch = "".join(rng.choices(some, k=rng.randint(1, 400)))
        parts.append(stretch)
        size += len(stretch)
    return "".join(parts)


def nothing() -> None:
    pass


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), prompt=st.sampled_from(("", "query: ", "title: none | text:")))
def test_windows_give_the_tokens_of_the_whole(tokenizer: Tokenizer, seed: int, prompt: str) -> None:
    text = long(seed, 3 * WINDOW)
    whole = tokenizer.encode(prompt + text, add_special_tokens=False).ids
    found = [token for ids in LongText(tokenizer, prompt, text, nothing).stream() for token in ids]
    assert found == whole
    length, kept = LongText(tokenizer, prompt, text, nothing).count(100)
    assert (length, kept[:100]) == (len(whole), whole[:100])


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    prompt=st.sampled_from(("", "query: ")),
    truncation=st.sampled_from(Truncation),
    room=st.integers(20, 2000),
)
def test_long_texts_are_cut_where_whole_ones_are(
    tokenizer: Tokenizer, seed: int, prompt: str, truncation: Truncation, room: int
) -> None:
    text = long(seed, random.Random(seed).choice((EDGE, 20 * EDGE, WINDOW, 2 * WINDOW)))
    encoding = tokenizer.encode(prompt + text)
    mask = encoding.special_tokens_mask
    head, tail = mask.index(0), mask[::-1].index(0)
    body, offsets = (each[head : len(mask) - tail] for each in (encoding.ids, encoding.offsets))
    limit = room + head + tail
    ours = TextTokenizer(tokenizer, limit)
    if truncation is Truncation.NONE and len(mask) > limit:
        with pytest.raises(InputTooLongError) as caught:
            ours.tokenise(["fox", text], prompt=prompt, truncation=truncation)
        assert (caught.value.index, caught.value.length, caught.value.limit) == (1, len(mask), limit)
        return
    if len(body) > room:
        fixed = sum(begin < len(prompt) for begin, _ in offsets) if truncation is Truncation.START else room
        body = body[:fixed] + body[len(body) - (room - fixed) :]
    expected = encoding.ids[:head] + body + encoding.ids[len(mask) - tail :]
    (_, found) = ours.tokenise(["fox", text], prompt=prompt, truncation=truncation)
    np.testing.assert_array_equal(found.ids, expected)


@pytest.mark.parametrize("truncation", Truncation)
def test_megabytes_with_hardly_any_tokens(truncation: Truncation) -> None:
    """Nothing but blanks, and a word at the very end, where a part of the text would show none of it."""
    ours = TextTokenizer(minilm(), 256)
    found = ours.tokenise([" " * 3_000_000 + "fox", "fox"], prompt="", truncation=truncation)
    np.testing.assert_array_equal(found[0].ids, found[1].ids)


@pytest.mark.parametrize("truncation", Truncation)
def test_a_word_without_an_end_is_bounded(tokenizer: Tokenizer, truncation: Truncation) -> None:
    ours = TextTokenizer(tokenizer, 64)
    windows = 0

    def checkpoint() -> None:
        nonlocal windows
        windows += 1

    with contextlib.suppress(InputTooLongError):
        (found,) = ours.tokenise(["x" * 2_500_000], prompt="", truncation=truncation, checkpoint=checkpoint)
        assert len(found.ids) <= 64
    assert windows < 60


def test_only_what_is_kept_is_looked_at() -> None:
    seen = 0

    def checkpoint() -> None:
        nonlocal seen
        seen += 1

    ours = TextTokenizer(minilm(), 256)
    text = "the quick brown fox " * 500_000
    for truncation in (Truncation.END, Truncation.START):
        seen = 0
        ours.tokenise([text], prompt="query: ", truncation=truncation, checkpoint=checkpoint)
        assert seen <= 3


def test_giving_up_between_windows() -> None:
    class GoneError(Exception):
        pass

    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise GoneError

    with pytest.raises(GoneError):
        TextTokenizer(minilm(), 256).tokenise(
            ["fox " * 1_000_000], prompt="", truncation=Truncation.NONE, checkpoint=checkpoint
        )


def test_a_prompt_that_fills_the_limit_is_refused() -> None:
    ours = TextTokenizer(minilm(), 8)
    ours.require_room("")
    ours.require_room("query: is it ")
    with pytest.raises(DirectoryError, match="takes 8 of 8 tokens and leaves none for a text"):
        ours.require_room("query: is it so? ")
