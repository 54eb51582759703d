"""A loaded model that sees: what the engine and the API see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

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
from embedding_runtime.images.decode import ImageLimits, decoded, image_size
from embedding_runtime.images.errors import UnusableImageError
from embedding_runtime.images.tiling import cut
from embedding_runtime.images.tiling_rule import count_tiles
from embedding_runtime.models.backbone import Backbone
from embedding_runtime.models.device_errors import device_errors
from embedding_runtime.models.embedder import Prompts
from embedding_runtime.models.pooling import pool
from embedding_runtime.models.vl_config import VisionLanguage
from embedding_runtime.models.vl_model import TokenSequence, VisionLanguageModel
from embedding_runtime.models.vl_tokenizer import VisionTokenizer


class VisionLanguageEmbedder:
    """Implements the engine's Model for texts, images, and both together."""

    def __init__(
        self,
        identity: ModelIdentity,
        tokenizer: Tokenizer,
        token_limits: Mapping[InputType | None, int],
        prompts: Prompts,
        model: VisionLanguageModel,
        limits: ImageLimits,
    ) -> None:
        self._identity = identity
        self._settings = model.settings
        self._tokenizer = VisionTokenizer(
            tokenizer, token_limits[InputType.QUERY], token_limits[InputType.PASSAGE], model.settings.image_token
        )
        self._tokenizer.require_room(prompts, model.settings.tile_tokens)
        self._prompts = prompts
        self._model = model
        self._limits = limits

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def backbone(self) -> Backbone:
        """The language model alone."""
        return Backbone(self._model.language, self._model.architecture, self._model.device)

    @property
    def settings(self) -> VisionLanguage:
        """What its directory says."""
        return self._settings

    @property
    def default_batch_tokens(self) -> int:
        # A page of seven tiles is 1800 tokens; several of them keep a GPU busy.
        return 16384 if self._model.device.type == "cuda" else 2048

    @property
    def default_batch_tiles(self) -> int:
        return 2 * self._model.tiles_at_once

    @property
    def largest_image_bytes(self) -> int:
        """The engine's Seeing: an image is held as the bytes of its tiles."""
        return self._settings.tiles.largest * 3 * self._settings.tiles.side**2

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        texts = {index: value for index, value in enumerate(inputs) if isinstance(value, str)}
        items = dict(zip(texts, self._texts(texts, input_type, truncation, checkpoint), strict=True))
        for index, value in enumerate(inputs):
            if isinstance(value, ImageInput):
                checkpoint()
                items[index] = self._image(index, value, truncation, checkpoint)
        return [items[index] for index in range(len(inputs))]

    def between_steps(self, call: Callable[[], None]) -> None:
        """The engine's Interruptible: a page of tiles keeps a CPU busy for long. A GPU is given all layers at once."""
        if self._model.device.type == "cpu":
            for layer in (*self._model.vision.encoder.layers, *self._model.language.layers):
                layer.register_forward_pre_hook(lambda *_: call())

    def prove(self) -> None:
        """The engine's Provable. Raises SelfTestError when the vectors cannot be right."""
        from embedding_runtime.models.selftest import run_self_test
        from embedding_runtime.models.sight import check_sight

        run_self_test(self)
        check_sight(self)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def see(self, tiles: NDArray[np.uint8]) -> Tensor:
        """The vision tower and the projector alone: tiles [n, 3, side, side] -> tokens of the language model."""
        return self._model.see(tiles)

    def embed(self, payloads: Sequence[object]) -> Matrix:
        sequences = [payload for payload in payloads if isinstance(payload, TokenSequence)]
        # Equal lengths side by side share one attention call.
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
        with device_errors():
            vectors = self._forward([sequences[index] for index in order])
        restored: Matrix = np.empty_like(vectors)
        restored[order] = vectors
        return restored

    def _texts(
        self,
        texts: dict[int, str],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None],
    ) -> list[Item]:
        prompt = self._prompts.for_type(input_type)
        try:
            tokenised = self._tokenizer.texts(
                list(texts.values()), query=input_type is not InputType.PASSAGE, prompt=prompt, truncation=truncation,
                checkpoint=checkpoint,
            )  # fmt: skip
        except InputTooLongError as error:
            raise error.at(list(texts)[error.index]) from None
        return [Item(len(tokens.ids), TokenSequence(tokens.ids), key=tokens.ids.tobytes()) for tokens in tokenised]

    def _image(self, index: int, value: ImageInput, truncation: Truncation, checkpoint: Callable[[], None]) -> Item:
        """Images are passages. What can be refused by size is refused before anything is decoded."""
        try:
            width, height = image_size(value.image, self._limits, checkpoint)
            tiles = count_tiles(width, height, self._settings.tiles)
            tokens = self._tokenizer.image(
                value.text,
                tiles * self._settings.tile_tokens,
                prompt=self._prompts.passage,
                truncation=truncation,
                checkpoint=checkpoint,
            )
            with decoded(value.image, self._limits, checkpoint) as pixels:
                tiled = cut(pixels, self._settings.tiles, checkpoint)
            # The size that a library tells is one thing, the pixels that it decodes another.
            if len(tiled) != tiles:
                raise UnusableImageError(f"says that it has {width} x {height} pixels, and has others")
        except UnusableImageError as error:
            raise InvalidImageError(index, str(error)) from error
        except InputTooLongError as error:
            raise error.at(index) from None
        sequence = TokenSequence(tokens.ids, tiled, tokens.image_begins)
        key = (tokens.ids.tobytes(), hashlib.blake2b(value.image).digest())
        return Item(len(tokens.ids), sequence, tiles, key)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _forward(self, sequences: Sequence[TokenSequence]) -> Matrix:
        hidden = self._model.forward(sequences)
        lengths = [len(sequence.ids) for sequence in sequences]
        vectors: Matrix = pool(hidden, lengths, self._settings.layout.poolings).cpu().numpy()
        return vectors
