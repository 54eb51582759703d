"""Prompts of a model that sees: image tokens that only an image brings, and texts that cannot pass for one.

The model's own processor writes `<img>`, `<IMG_CONTEXT>` for every token of the image, and `</img>` into the prompt and
tokenises the whole. Here the tokenizer knows these tokens under names that nobody can guess, so that they mean images
where this module wrote them and are plain text where a user did.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedding_runtime.engine.model import InputTooLongError, Truncation, no_checkpoint
from embedding_runtime.models.embedder import Prompts
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.tokenizer import TextTokenizer, TokenIds
from embedding_runtime.models.vl_config import IMAGE_BEGINS, IMAGE_ENDS, IMAGE_TOKEN, PLACEHOLDERS


@dataclass(frozen=True, slots=True)
class ImageText:
    """The ids of a prompt with an image; its tokens are the `image_tokens` from position `image_begins` on."""

    ids: NDArray[np.int32]
    image_begins: int
    image_tokens: int


class VisionTokenizer:
    """Tokenises texts and prompts with images, for a model that reads at most `query_limit` tokens of a query and
    `limit` of a passage.

    May be used from several threads. Raises DirectoryError when the tokenizer does not know the image token by the id
    that the model's configuration gives.
    """

    def __init__(self, tokenizer: Tokenizer, query_limit: int, limit: int, image_token: int) -> None:
        if tokenizer.token_to_id(IMAGE_TOKEN) != image_token:
            raise DirectoryError(
                f"config.json: img_context_token_id is {image_token}, "
                f"but the tokenizer's {IMAGE_TOKEN} is {tokenizer.token_to_id(IMAGE_TOKEN)}"
            )
        self._tokenizer, self._names = _rename(tokenizer)
        self._limit = limit
        self._image_token = image_token
        self._passages = TextTokenizer(self._tokenizer, limit)
        self._queries = TextTokenizer(self._tokenizer, query_limit)
        # One for each number of tiles there can be.
        self._beside_images = lru_cache(64)(lambda tokens: TextTokenizer(self._tokenizer, limit + 1 - tokens))

    def require_room(self, prompts: Prompts, tile_tokens: int) -> None:
        """Raises DirectoryError when a prompt leaves no room for a text behind it, or for an image of one tile."""
        self._queries.require_room(prompts.query)
        self._passages.require_room(prompts.passage)
        least = self._around(prompts.passage) + tile_tokens
        if least > self._limit:
            raise DirectoryError(
                f"an image takes at least {least} tokens, but inputs may have {self._limit} only; set "
                f"--max-input-tokens (EMBEDDING_MAX_INPUT_TOKENS) to {least} or more"
            )

    def texts(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        prompt: str,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[TokenIds]:
        """As TextTokenizer.tokenise, of queries or of passages."""
        texts_of = self._queries if query else self._passages
        return texts_of.tokenise(texts, prompt=prompt, truncation=truncation, checkpoint=checkpoint)

    def image(
        self, text: str, image_tokens: int, *, prompt: str, truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> ImageText:  # fmt: skip
        """The image behind the prompt, the text behind the image and a space; only the text may be cut.

        Raises InputTooLongError, with index 0, also when prompt and image alone are too long.
        """
        before = self._before(prompt)
        # The image counts as one token while the text is cut.
        others = image_tokens - 1
        fixed = self._around(prompt) + image_tokens
        if fixed > self._limit:
            raise InputTooLongError(0, self._count(text, before, checkpoint) + others, self._limit, fixed)
        try:
            tokens = (
                self._beside_images(image_tokens)
                .tokenise([text], prompt=before, truncation=truncation, checkpoint=checkpoint)[0]
                .ids
            )
        except InputTooLongError as error:
            raise InputTooLongError(0, error.length + others, self._limit, fixed) from None
        begin = int(np.flatnonzero(tokens == self._image_token)[0])
        image = np.full(image_tokens, self._image_token, np.int32)
        return ImageText(np.concatenate([tokens[:begin], image, tokens[begin + 1 :]]), begin, image_tokens)

    def _before(self, prompt: str) -> str:
        """What stands before the text, with one token for the whole image."""
        names = self._names
        return f"{prompt}{names[IMAGE_BEGINS]}{names[IMAGE_TOKEN]}{names[IMAGE_ENDS]} "

    def _around(self, prompt: str) -> int:
        """The tokens of an image's prompt beside the image."""
        return self._passages.prompt_tokens(self._before(prompt)) - 1

    def _count(self, text: str, prompt: str, checkpoint: Callable[[], None]) -> int:
        try:
            tokens = self._passages.tokenise([text], prompt=prompt, truncation=Truncation.NONE, checkpoint=checkpoint)
        except InputTooLongError as error:
            return error.length
        return len(tokens[0].ids)


def _rename(tokenizer: Tokenizer) -> tuple[Tokenizer, dict[str, str]]:
    """A copy that knows each placeholder under a name made up now, with its id and all its properties; and the names.

    Placeholders that are no tokens keep their name: as they are plain text, nothing can be mistaken for them.
    """
    stored = json.loads(tokenizer.to_str())
    names = {placeholder: placeholder for placeholder in PLACEHOLDERS}
    for token in stored["added_tokens"]:
        if token["content"] in names:
            placeholder = token["content"]
            token["content"] = names[placeholder] = f"<{secrets.token_hex(16)}>"
            vocabulary = stored["model"].get("vocab")
            if isinstance(vocabulary, dict) and placeholder in vocabulary:
                vocabulary[names[placeholder]] = vocabulary.pop(placeholder)
    renamed = Tokenizer.from_str(json.dumps(stored))
    for placeholder, name in names.items():
        if renamed.token_to_id(name) != tokenizer.token_to_id(placeholder):
            raise DirectoryError(f"tokenizer.json: the token {placeholder} cannot be told from text")
    return renamed, names
