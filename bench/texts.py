"""Seeded texts of exact token counts, the same for every server of a run.

Every text is made of whole words of the model's own vocabulary, each of which is one token, so lengths are known
without a tokenizer. Thousands of texts differ before one comes again, so that no text is in flight twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

# [CLS] and [SEP].
SPECIAL_TOKENS = 2
SHORT_TOKENS = 16
MIXED_MEDIAN, MIXED_SIGMA, MIXED_LEAST, MIXED_MOST = 40.0, 0.8, 4, 256


def vocabulary(model: Path) -> tuple[str, ...]:
    """Plain lower-case words of a WordPiece vocabulary file (`vocab.txt`), each one token by itself."""
    lines = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return tuple(word for word in lines if len(word) > 2 and word.isascii() and word.isalpha() and word.islower())


def text_of(tokens: int, words: Sequence[str], source: random.Random) -> str:
    """A text that is `tokens` tokens long, special tokens included."""
    return " ".join(source.choices(words, k=max(1, tokens - SPECIAL_TOKENS)))


def exact_texts(count: int, tokens: int, words: Sequence[str], seed: int) -> list[str]:
    """Texts of the same length."""
    source = random.Random(seed)
    return [text_of(tokens, words, source) for _ in range(count)]


def mixed_lengths(count: int, seed: int) -> list[int]:
    """Lengths as documents and questions have them: lognormal, 4 to 256 tokens, median 40, mean about 54."""
    source = random.Random(seed)
    return [mixed_length(source) for _ in range(count)]


def mixed_length(source: random.Random) -> int:
    """One length of `mixed_lengths`."""
    drawn = round(MIXED_MEDIAN * source.lognormvariate(0.0, MIXED_SIGMA))
    return min(max(drawn, MIXED_LEAST), MIXED_MOST)


def mixed_texts(count: int, words: Sequence[str], seed: int) -> list[str]:
    """Texts of mixed lengths."""
    source = random.Random(seed)
    return [text_of(mixed_length(source), words, source) for _ in range(count)]
