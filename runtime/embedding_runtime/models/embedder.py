"""A loaded text model: what the engine and the API see of torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from embedding_runtime.engine.model import (
    DeviceLostError,
    InputType,
    Item,
    Matrix,
    ModelIdentity,
    OutOfMemoryError,
    Truncation,
)
from embedding_runtime.models.attention import Packed
from embedding_runtime.models.backbone import Backbone
from embedding_runtime.models.layout import Pooling
from embedding_runtime.models.pooling import pool
from embedding_runtime.models.tokenizer import TokenIds, tokenise


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is put before a text, by what the text is; `default` when the request does not say."""

    query: str
    passage: str
    default: str

    def for_type(self, input_type: InputType | None) -> str:
        match input_type:
            case InputType.QUERY:
                return self.query
            case InputType.PASSAGE:
                return self.passage
            case None:
                return self.default


class TextEmbedder:
    """Implements the engine's Model for text. Batches run packed: texts end to end, no padding."""

    def __init__(
        self,
        identity: ModelIdentity,
        tokenizer: Tokenizer,
        prompts: Prompts,
        backbone: Backbone,
        poolings: Sequence[Pooling],
        projection: torch.nn.Sequential,
        device: torch.device,
    ) -> None:
        self._identity = identity
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._backbone = backbone
        self._poolings = tuple(poolings)
        self._projection = projection
        self._device = device

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def default_batch_tokens(self) -> int:
        # Small packs stay in a CPU's cache; a GPU needs tens of thousands of tokens to be busy.
        return 16384 if self._device.type == "cuda" else 512

    def prepare(self, texts: Sequence[str], input_type: InputType | None, truncation: Truncation) -> list[Item]:
        tokenised = tokenise(
            self._tokenizer,
            texts,
            prompt=self._prompts.for_type(input_type),
            limit=self._identity.max_input_tokens,
            truncation=truncation,
        )
        return [Item(len(tokens.ids), tokens) for tokens in tokenised]

    def embed(self, payloads: Sequence[object]) -> Matrix:
        texts = [payload for payload in payloads if isinstance(payload, TokenIds)]
        # Equal lengths side by side share one attention call.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        try:
            vectors = self._forward([texts[i].ids for i in order])
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemoryError(str(error)) from error
        except torch.AcceleratorError as error:
            raise DeviceLostError(str(error)) from error
        restored = torch.empty_like(vectors)
        restored[torch.tensor(order)] = vectors
        result: Matrix = restored.numpy()
        return result

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _forward(self, texts: Sequence[list[int]]) -> torch.Tensor:
        lengths = [len(ids) for ids in texts]
        bounds = [0]
        for length in lengths:
            bounds.append(bounds[-1] + length)
        ids = torch.tensor([token for text in texts for token in text], device=self._device)
        positions = torch.cat([torch.arange(length) for length in lengths]).to(self._device)
        packed = Packed(tuple(bounds), torch.tensor(bounds, dtype=torch.int32, device=self._device), max(lengths))
        hidden = self._backbone.forward(ids, positions, packed)
        return self._projection(pool(hidden, lengths, self._poolings)).float().cpu()
