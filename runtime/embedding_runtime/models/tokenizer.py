"""Texts to token ids: prompt and text as one string, truncation that keeps prompt and special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer, normalizers

from embedding_runtime.engine.model import InputTooLongError, Truncation
from embedding_runtime.models.files import DirectoryError


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The ids of one text, special tokens included; the first `prompt` of them stem from the prompt."""

    ids: list[int]
    prompt: int = 0


def load_tokenizer(directory: Path, *, lowercase: bool) -> tuple[Tokenizer, int | None]:
    """The fast tokenizer of a model directory and its own length limit.

    Padding and truncation stored in tokenizer.json are dropped: how long inputs may be is decided per request.
    Raises DirectoryError when a file is missing or corrupt.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise DirectoryError(f"the tokenizer cannot be loaded: {str(error).strip().splitlines()[0]}") from error
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


def tokenise(
    tokenizer: Tokenizer, texts: Sequence[str], *, prompt: str, limit: int, truncation: Truncation
) -> list[TokenIds]:
    """Ids of every text behind the prompt, at most `limit` of them.

    Raises InputTooLongError for the first text over the limit when `truncation` is NONE.
    """
    encodings = tokenizer.encode_batch_fast([prompt + text for text in texts])
    result = []
    for index, encoding in enumerate(encodings):
        ids = encoding.ids
        if len(ids) > limit:
            if truncation is Truncation.NONE:
                raise InputTooLongError(index, len(ids), limit)
            ids = _truncate(tokenizer, encoding, prompt + texts[index], len(prompt), limit, truncation)
        result.append(TokenIds(ids))
    return result


def _truncate(
    tokenizer: Tokenizer, encoding: Encoding, text: str, prompt_length: int, limit: int, truncation: Truncation
) -> list[int]:
    """Cut the text's tokens: END keeps the first, START the last; special and prompt tokens stay."""
    ids, mask = encoding.ids, encoding.special_tokens_mask
    head = next((i for i, special in enumerate(mask) if not special), len(mask))
    tail = next((i for i, special in enumerate(reversed(mask)) if not special), 0)
    room = max(0, limit - head - tail)
    body = ids[head : len(ids) - tail]
    if truncation is Truncation.END:
        kept = body[:room]
    else:
        prompt = _prompt_tokens(tokenizer, text, prompt_length) if prompt_length else 0
        kept = body[:prompt] + (body[prompt:][-(room - prompt) :] if room > prompt else [])
    return ids[:head] + kept + ids[len(ids) - tail :]


def _prompt_tokens(tokenizer: Tokenizer, text: str, prompt_length: int) -> int:
    """How many of the text's tokens begin inside the prompt."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return sum(1 for begin, _ in encoding.offsets if begin < prompt_length)
