"""Texts to token ids: prompt and text as one string, truncation that keeps prompt and special tokens.

Texts may be as large as a request body. They are tokenised in portions, so that the tokenizer's own bookkeeping, many
times the size of the text, is held for a small part of it only (long_text.py).
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
from embedding_runtime.models.long_text import EDGE, WINDOW, LongText

# Characters given to the tokenizer at a time, in texts of ordinary length.
_PORTION = 256 * 1024
# Characters per token, generously: where so many hold the tokens that are kept, no more are looked at.
_CHARACTERS_PER_TOKEN = 16


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
        encoding = self._encode("a")
        specials = encoding.special_tokens_mask
        head = next((i for i, special in enumerate(specials) if not special), len(specials))
        tail = next((i for i, special in enumerate(reversed(specials)) if not special), 0)
        self._head, self._tail = encoding.ids[:head], encoding.ids[len(encoding.ids) - tail :]
        self._room = max(0, limit - head - tail)
        self._needed = _CHARACTERS_PER_TOKEN * limit + EDGE
        self.prompt_tokens = lru_cache(8)(self._prompt_tokens)

    def tokenise(
        self,
        texts: Sequence[str],
        *,
        prompt: str,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[TokenIds]:
        """Ids of every text behind the prompt. `checkpoint` is called between portions.

        Raises InputTooLongError for the first text over the limit when `truncation` is NONE.
        """
        skipped = self.prompt_tokens(prompt)
        long = WINDOW if truncation is Truncation.NONE else min(self._needed, WINDOW)
        result: list[TokenIds] = []
        for portion in _portions(texts, long):
            checkpoint()
            if len(portion[0]) > long:
                text = LongText(self._tokenizer, prompt, portion[0], checkpoint)
                result.append(TokenIds(self._long(text, truncation, len(result)), skipped))
                continue
            ordinary = self._ordinary(portion, prompt, truncation, len(result))
            result += [TokenIds(np.array(ids, np.int32), skipped) for ids in ordinary]
        return result

    def require_room(self, prompt: str) -> None:
        """Raises DirectoryError when a prompt leaves no room for a text behind it."""
        tokens = len(self._encode(prompt).ids)
        if prompt and tokens >= self._limit:
            raise DirectoryError(
                f"the prompt {prompt[:40]!r} takes {tokens} of {self._limit} tokens and leaves none for a text; "
                "shorten it (EMBEDDING_QUERY_PROMPT, EMBEDDING_PASSAGE_PROMPT) or raise EMBEDDING_MAX_INPUT_TOKENS"
            )

    def _ordinary(self, texts: list[str], prompt: str, truncation: Truncation, index: int) -> Iterator[list[int]]:
        """The ids of texts, the first of which is number `index` of its request."""
        if prompt:
            texts = [prompt + text for text in texts]
        # Only START asks where in the text a token is from.
        encode = self._tokenizer.encode_batch if truncation is Truncation.START else self._tokenizer.encode_batch_fast
        for number, encoding in enumerate(encode(texts), index):
            ids: list[int] = encoding.ids
            if len(ids) > self._limit:
                if truncation is Truncation.NONE:
                    raise InputTooLongError(number, len(ids), self._limit)
                ids = self._cut(encoding, len(prompt), truncation)
            yield ids

    def _cut(self, encoding: Encoding, prompt: int, truncation: Truncation) -> list[int]:
        """At most `limit` tokens: END keeps the text's first, START its last; special and prompt tokens stay.

        `prompt` is the number of characters of the prompt.
        """
        inner = slice(len(self._head), len(encoding.ids) - len(self._tail))
        body = encoding.ids[inner]
        if truncation is Truncation.END:
            return self._whole(body[: self._room])
        fixed = min(self._room, sum(1 for begin, _ in encoding.offsets[inner] if begin < prompt)) if prompt else 0
        return self._whole(body[:fixed] + body[len(body) - (self._room - fixed) :])

    def _long(self, text: LongText, truncation: Truncation, index: int) -> NDArray[np.int32]:
        """The ids of a text of which only a part may be looked at at a time."""
        if truncation is Truncation.END:
            body = text.first(self._room, self._needed)
        elif truncation is Truncation.START:
            body = text.last(self._room, self._needed)
        else:
            length, body = text.count(self._room)
            length += len(self._head) + len(self._tail)
            if length > self._limit:
                raise InputTooLongError(index, length, self._limit)
        return np.array(self._whole(body), np.int32)

    def _whole(self, body: list[int]) -> list[int]:
        return self._head + body + self._tail

    def _encode(self, text: str) -> Encoding:
        """One text, special tokens included."""
        encodings: list[Encoding] = self._tokenizer.encode_batch([text])
        return encodings[0]

    def _prompt_tokens(self, prompt: str) -> int:
        """How many leading tokens belong to a prompt: as sentence-transformers counts, special ones before it too."""
        if not prompt:
            return 0
        encoding = self._encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1:] == [1] else 0)


def _portions(texts: Sequence[str], long: int) -> Iterator[list[str]]:
    """Texts in order, grouped to about a portion's characters; one of more than `long` characters is alone."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and (size + len(text) > _PORTION or max(len(text), len(group[0])) > long):
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
