"""A loaded model of two towers, CLIP or SigLIP: what the engine and the API see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedding_runtime.engine.model import (
    ImageInput,
    Input,
    InputTooLongError,
    InputType,
    InvalidImageError,
    Item,
    Matrix,
    ModelIdentity,
    Truncation,
    no_checkpoint,
)
from embedding_runtime.images.decode import ImageLimits, decoded
from embedding_runtime.images.errors import UnusableImageError
from embedding_runtime.models.device_errors import device_errors
from embedding_runtime.models.dual_images import ImageProcessor
from embedding_runtime.models.embedder import Prompts
from embedding_runtime.models.tokenizer import TextTokenizer, TokenIds


def _images_at_once(device: torch.device) -> int:
    """How many go through their tower in one call."""
    return 64 if device.type == "cuda" else 8


@dataclass(frozen=True, slots=True)
class Towers:
    """A stock CLIPModel or SiglipModel, its image processor, and how it takes texts.

    Texts shorter than `text_width` are filled up with `padding` (None: as the longest, with whatever ends each: what is
    behind it is never seen). An image is `image_tokens` patches and class tokens.
    """

    module: Any
    process: ImageProcessor
    text_width: int | None
    padding: int
    image_side: int
    image_tokens: int
    dtype: torch.dtype
    device: torch.device

    def texts(self, texts: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """Token ids -> one vector for each."""
        width = self.text_width or max(map(len, texts))
        rows = np.empty((len(texts), width), np.int64)
        for row, ids in zip(rows, texts, strict=True):
            row[: len(ids)] = ids
            row[len(ids) :] = ids[-1] if self.text_width is None else self.padding
        vectors: torch.Tensor = self.module.get_text_features(
            input_ids=torch.from_numpy(rows).to(self.device)
        ).pooler_output
        return vectors

    def images(self, pixels: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Processed pixels [3, height, width] -> one vector for each."""
        at_once = _images_at_once(self.device)
        parts = [
            self.module.get_image_features(
                pixel_values=torch.from_numpy(np.stack(pixels[begin : begin + at_once])).to(self.device, self.dtype)
            ).pooler_output
            for begin in range(0, len(pixels), at_once)
        ]
        return torch.cat(parts)


class DualEmbedder:
    """Implements the engine's Model for texts and for images."""

    def __init__(
        self,
        identity: ModelIdentity,
        tokenizer: Tokenizer,
        token_limits: Mapping[InputType | None, int],
        prompts: Prompts,
        towers: Towers,
        projection: torch.nn.Sequential,
        limits: ImageLimits,
    ) -> None:
        self._identity = identity
        by_limit = {limit: TextTokenizer(tokenizer, limit) for limit in set(token_limits.values())}
        self._tokenizers = {kind: by_limit[limit] for kind, limit in token_limits.items()}
        for kind, text_tokenizer in self._tokenizers.items():
            text_tokenizer.require_room(prompts.for_type(kind))
        self._prompts = prompts
        self._towers = towers
        self._projection = projection
        self._limits = limits

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def default_batch_tokens(self) -> int:
        return 16384 if self._towers.device.type == "cuda" else 1024

    @property
    def default_batch_tiles(self) -> int:
        return 4 * _images_at_once(self._towers.device)

    @property
    def largest_image_bytes(self) -> int:
        """The engine's Seeing: an image is held as float32 pixels."""
        return 3 * 4 * self._towers.image_side**2

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        places = [index for index, value in enumerate(inputs) if isinstance(value, str)]
        texts = [value for value in inputs if isinstance(value, str)]
        prompt = self._prompts.for_type(input_type)
        try:
            tokens = self._tokenizers[input_type].tokenise(
                texts, prompt=prompt, truncation=truncation, checkpoint=checkpoint
            )
        except InputTooLongError as error:
            raise error.at(places[error.index]) from None
        items = {
            place: Item(len(each.ids), each, key=each.ids.tobytes()) for place, each in zip(places, tokens, strict=True)
        }
        for index, value in enumerate(inputs):
            if isinstance(value, ImageInput):
                checkpoint()
                items[index] = self._image(index, value, checkpoint)
        return [items[index] for index in range(len(inputs))]

    def between_steps(self, call: Callable[[], None]) -> None:
        """The engine's Interruptible: a CPU computes layer after layer. A GPU is given all of them at once."""
        if self._towers.device.type == "cpu":
            module = self._towers.module
            for layer in (*module.text_model.encoder.layers, *module.vision_model.encoder.layers):
                layer.register_forward_pre_hook(lambda *_: call())

    def prove(self) -> None:
        """The engine's Provable. Raises SelfTestError when the vectors cannot be right."""
        from embedding_runtime.models.selftest import check_vectors
        from embedding_runtime.models.sight import check_sight

        check_vectors(self)
        check_sight(self)

    def embed(self, payloads: Sequence[object]) -> Matrix:
        with device_errors():
            vectors: Matrix = self._embed(payloads)
        return vectors

    def _image(self, index: int, value: ImageInput, checkpoint: Callable[[], None]) -> Item:
        try:
            with decoded(value.image, self._limits, checkpoint) as pixels:
                processed = self._towers.process(pixels, checkpoint)
        except UnusableImageError as error:
            raise InvalidImageError(index, str(error)) from error
        key = (self._towers.image_tokens, hashlib.blake2b(value.image).digest())
        return Item(self._towers.image_tokens, processed, 1, key)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _embed(self, payloads: Sequence[object]) -> Matrix:
        texts = {place: payload.ids for place, payload in enumerate(payloads) if isinstance(payload, TokenIds)}
        images = {place: payload for place, payload in enumerate(payloads) if isinstance(payload, np.ndarray)}
        parts = []
        if texts:
            parts.append(self._towers.texts(list(texts.values())))
        if images:
            parts.append(self._towers.images(list(images.values())))
        vectors: Matrix = self._projection(torch.cat(parts).float()).cpu().numpy()
        restored: Matrix = np.empty_like(vectors)
        restored[[*texts, *images]] = vectors
        return restored
