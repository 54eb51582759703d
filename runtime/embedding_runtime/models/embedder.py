"""A loaded text model: what the engine and the API see of torch and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from embedding_runtime.engine.model import (
    Input,
    InputType,
    Item,
    Matrix,
    ModelIdentity,
    Truncation,
    no_checkpoint,
)
from embedding_runtime.models.backbone import Backbone
from embedding_runtime.models.device_errors import device_errors
from embedding_runtime.models.layout import Layout
from embedding_runtime.models.pooling import pool
from embedding_runtime.models.shares import Shares
from embedding_runtime.models.tokenizer import TextTokenizer, TokenIds


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
    """Implements the engine's Model for text."""

    def __init__(
        self,
        identity: ModelIdentity,
        tokenizer: Tokenizer,
        limits: Mapping[InputType | None, int],
        prompts: Prompts,
        backbone: Backbone,
        layout: Layout,
        projection: torch.nn.Sequential,
        shares: Shares,
    ) -> None:
        self._identity = identity
        by_limit = {limit: TextTokenizer(tokenizer, limit) for limit in set(limits.values())}
        self._tokenizers = {kind: by_limit[limit] for kind, limit in limits.items()}
        for kind, text_tokenizer in self._tokenizers.items():
            text_tokenizer.require_room(prompts.for_type(kind))
        self._prompts = prompts
        self._backbone = backbone
        self._layout = layout
        self._projection = projection
        self._shares = shares

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def backbone(self) -> Backbone:
        return self._backbone

    @property
    def padded(self) -> bool:
        """The engine's Padding: only packed attention does without."""
        return not self._backbone.architecture.packed

    @property
    def default_batch_tokens(self) -> int:
        # Small packs stay in a CPU's cache; a GPU needs tens of thousands of tokens to be busy.
        return 16384 if self._backbone.device.type == "cuda" else 512

    @property
    def workers(self) -> int:
        """The engine's Parallel."""
        return self._shares.workers

    def take(self, parts: int, tokens: int) -> int:
        return self._shares.take(parts, tokens)

    def prepare(
        self,
        inputs: Sequence[Input],
        input_type: InputType | None,
        truncation: Truncation,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[Item]:
        texts = [text for text in inputs if isinstance(text, str)]
        prompt = self._prompts.for_type(input_type)
        tokenizer = self._tokenizers[input_type]
        tokenised = tokenizer.tokenise(texts, prompt=prompt, truncation=truncation, checkpoint=checkpoint)
        if self._layout.include_prompt:
            return [Item(len(tokens.ids), tokens, key=tokens.ids.tobytes()) for tokens in tokenised]
        # Pooling leaves the prompt's tokens out, so that the same ids behind another prompt give another vector.
        return [Item(len(tokens.ids), tokens, key=(tokens.prompt, tokens.ids.tobytes())) for tokens in tokenised]

    def between_steps(self, call: Callable[[], None]) -> None:
        """The engine's Interruptible: a CPU computes layer after layer. A GPU is given all of them at once."""
        if self._backbone.device.type == "cpu":
            for layer in self._backbone.layers:
                layer.register_forward_pre_hook(lambda *_: call())

    def prove(self) -> None:
        """The engine's Provable. Raises SelfTestError when the vectors cannot be right."""
        from embedding_runtime.models.selftest import run_self_test

        run_self_test(self)

    def embed(self, payloads: Sequence[object]) -> Matrix:
        texts = [payload for payload in payloads if isinstance(payload, TokenIds)]
        # Equal lengths side by side share one attention call.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index].ids))
        with device_errors():
            vectors = embed_tokens(
                self._backbone, self._layout, self._projection, [texts[index] for index in order]
            ).numpy()
        restored: Matrix = np.empty_like(vectors)
        restored[order] = vectors
        return restored


@torch.inference_mode()  # type: ignore[untyped-decorator]
def embed_tokens(
    backbone: Backbone, layout: Layout, projection: torch.nn.Sequential, texts: Sequence[TokenIds]
) -> torch.Tensor:
    """The vectors of texts in float32 on the CPU [texts, dimensions]."""
    hidden = backbone.forward([text.ids for text in texts])
    lengths = [len(text.ids) for text in texts]
    skipped = None if layout.include_prompt else [text.prompt for text in texts]
    pooled = pool(hidden, lengths, layout.poolings, skipped)
    projected: torch.Tensor = projection(pooled)
    return projected.float().cpu()
