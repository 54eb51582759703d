"""Texts to token ids: prompt and text as one string, truncation that keeps prompt and special tokens.

Texts may be as large as a request body. They are tokenised in portions, so that the tokenizer's own bookkeeping, many
times the size of the text, is held for a small part of it only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, normalizers

from embedding_runtime.engine.model import InputTooLongError, Truncation, no_checkpoint
from embedding_runtime.models.files import DirectoryError

# Characters given to the tokenizer at a time.
_PORTION = 256 * 1024
# Beyond this many tokens, how long a refused text exactly is makes no difference to anybody.
_COUNTED_TOKENS = 1_000_000
# Tokens beyond the limit that a cut-out part must have, so that cutting the string there changes no token that is kept.
_MARGIN = 64


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The ids of one text, special tokens included; the first `prompt` of them stem from the prompt."""

    ids: NDArray[np.int32]
    prompt: int = 0


def load_tokenizer(directory: Path, *, lowercase: bool) -> tuple[Tokenizer, int | None]:
    """The fast tokenizer of a model directory and its own length limit.

    Padding and truncation stored in tokenizer.json are dropped: how long inputs may be is decided per request.
    Raises DirectoryError when a file is missing or corrupt.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        try:
            loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        except (KeyError, ValueError):
            # Names of remote model types tell AutoTokenizer nothing; tokenizer.json says it all.
            if not (directory / "tokenizer.json").exists():
                raise
            loaded = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DirectoryError(f"the tokenizer cannot be loaded: {reason}") from error
    tokenizer: Tokenizer | None = getattr(loaded, "backend_tokenizer", None)
    if tokenizer is None:
        raise DirectoryError(f"tokenizer.json is missing and {type(loaded).__name__} has no fast form")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if lowercase and (tokenizer.normalizer is None or tokenizer.normalizer.normalize_str("A") == "A"):
        steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)
    limit = int(loaded.model_max_length)
    return tokenizer, limit if limit < 10**9 else None


class TextTokenizer:
    """Tokenises texts for a model that reads at most `limit` tokens. May be used from several threads."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self.prompt_tokens = lru_cache(8)(self._prompt_tokens)

    def tokenise(
        self,
        texts: Sequence[str],
        *,
        prompt: str,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[TokenIds]:
        """Ids of every text behind the prompt.

        Raises InputTooLongError for the first text over the limit when `truncation` is NONE.
        """
        skipped = self.prompt_tokens(prompt)
        result: list[TokenIds] = []
        for portion in _portions(texts):
            checkpoint()
            if len(portion) == 1 and len(prompt) + len(portion[0]) > _PORTION:
                result.append(TokenIds(self._huge(portion[0], prompt, truncation, len(result)), skipped))
                continue
            encodings = self._tokenizer.encode_batch_fast([prompt + text for text in portion])
            for text, encoding in zip(portion, encodings, strict=True):
                ids = encoding.ids
                if len(ids) > self._limit:
                    if truncation is Truncation.NONE:
                        raise InputTooLongError(len(result), len(ids), self._limit)
                    ids = self._cut(prompt, text, truncation)
                result.append(TokenIds(np.array(ids, np.int32), skipped))
        return result

    def _encode(self, text: str) -> Encoding:
        """One text. As a batch, because only then the library lets other threads run meanwhile: a text of megabytes
        must not hold up health probes."""
        encodings: list[Encoding] = self._tokenizer.encode_batch([text])
        return encodings[0]

    def _huge(self, text: str, prompt: str, truncation: Truncation, index: int) -> NDArray[np.int32]:
        """A text of megabytes: counted in portions when it is refused, and only its kept part looked at otherwise."""
        if truncation is Truncation.NONE:
            length = len(self._encode(prompt).ids)
            for begin in range(0, len(text), _PORTION):
                part = text[begin : begin + _PORTION]
                length += len(self._tokenizer.encode_batch_fast([part], add_special_tokens=False)[0].ids)
                if length > _COUNTED_TOKENS:
                    break
            if length > self._limit:
                raise InputTooLongError(index, length, self._limit)
            return np.array(self._encode(prompt + text).ids, np.int32)
        size = _PORTION
        while size < len(text):
            part = text[:size] if truncation is Truncation.END else text[-size:]
            ids = self._tokenizer.encode_batch_fast([prompt + part])[0].ids
            if len(ids) > self._limit + _MARGIN:
                return np.array(self._cut(prompt, part, truncation), np.int32)
            size *= 4
        return np.array(self._cut(prompt, text, truncation), np.int32)

    def _cut(self, prompt: str, text: str, truncation: Truncation) -> list[int]:
        """At most `limit` tokens: END keeps the text's first, START its last; special and prompt tokens stay."""
        encoding = self._encode(prompt + text)
        ids, mask = encoding.ids, encoding.special_tokens_mask
        head = next((i for i, special in enumerate(mask) if not special), len(mask))
        tail = next((i for i, special in enumerate(reversed(mask)) if not special), 0)
        room = max(0, self._limit - head - tail)
        body = ids[head : len(ids) - tail]
        if len(body) <= room:
            kept = body
        elif truncation is Truncation.END:
            kept = body[:room]
        else:
            offsets = encoding.offsets[head : len(ids) - tail]
            fixed = min(room, sum(1 for begin, _ in offsets if begin < len(prompt)))
            kept = body[:fixed] + body[len(body) - (room - fixed) :]
        return ids[:head] + kept + ids[len(ids) - tail :]

    def _prompt_tokens(self, prompt: str) -> int:
        """How many leading tokens belong to a prompt: as sentence-transformers counts, special ones before it too."""
        if not prompt:
            return 0
        encoding = self._encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1:] == [1] else 0)


def _portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in order, grouped to about a portion's characters; a larger one is alone."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _PORTION:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
