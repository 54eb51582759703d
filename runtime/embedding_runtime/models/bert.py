"""The encoder that BERT, RoBERTa, XLM-R and their relatives share, in as few operators as torch has for it.

transformers' classes spend as long on arguments, masks and module calls as a lone short text takes to compute. Here a
layer is four matrix products, one attention and two normalisations over one row of packed tokens. It computes what the
stock class computes: tests compare them, and every load compares the two on built-in texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, layer_norm

from embedding_runtime.models.attention import Packed, attend
from embedding_runtime.models.linear import Linear

Make = Callable[[Tensor, Tensor | None], Linear]

# Families whose layers are these, under these names.
FAMILIES = frozenset({"bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta"})


def is_supported(family: str, config: Any) -> bool:
    """Whether the encoder below computes what a configuration of this family asks for."""
    return (
        family in FAMILIES
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


class _Norm:
    """A layer normalisation, as the arguments of the function."""

    def __init__(self, module: Any) -> None:
        self._arguments = (module.normalized_shape, module.weight.detach(), module.bias.detach(), module.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, *self._arguments)


class _Layer(torch.nn.Module):  # type: ignore[misc]
    """Attention, then two linear layers with a GELU between; each half is added to its input and the sum is normed."""

    def __init__(self, layer: Any, make: Make) -> None:
        super().__init__()
        attention = layer.attention.self
        self._heads = attention.num_attention_heads
        parts = (attention.query, attention.key, attention.value)
        self._query_key_value = make(
            torch.cat([part.weight.detach() for part in parts]), torch.cat([part.bias.detach() for part in parts])
        )
        for part in parts:
            part.weight = part.bias = None
        self._mixed = _take(layer.attention.output.dense, make)
        self._mixed_norm = _Norm(layer.attention.output.LayerNorm)
        self._wide = _take(layer.intermediate.dense, make)
        self._narrow = _take(layer.output.dense, make)
        self._norm = _Norm(layer.output.LayerNorm)

    def forward(self, x: Tensor, packed: Packed) -> Tensor:
        tokens = x.shape[0]
        query, key, value = self._query_key_value(x).view(tokens, 3, self._heads, -1).unbind(1)
        x = self._mixed_norm(self._mixed(attend(query, key, value, packed).reshape(tokens, -1)).add_(x))
        return self._norm(self._narrow(self._wide.with_gelu(x)).add_(x))


class BertEncoder(torch.nn.Module):  # type: ignore[misc]
    """Token ids and positions [tokens] of packed texts -> hidden states [tokens, size].

    Takes the weights out of the stock module layer by layer, so that they are never held twice.
    """

    def __init__(self, module: Any, make: Make) -> None:
        super().__init__()
        embeddings = module.embeddings
        self._words = embeddings.word_embeddings.weight.detach()
        # Every token is of type 0 (and task 0): what is added for that is the same at a position for every text.
        places = embeddings.position_embeddings.weight.detach().clone()
        for name in ("token_type_embeddings", "task_type_embeddings"):
            kind = getattr(embeddings, name, None)
            if kind is not None:
                places += kind.weight.detach()[0]
        self._places = places
        embeddings.position_embeddings.weight = None
        self._norm = _Norm(embeddings.LayerNorm)
        project = getattr(module, "embeddings_project", None)
        self._project = None if project is None else _take(project, make)
        self.layers = torch.nn.ModuleList(_Layer(layer, make) for layer in module.encoder.layer)

    def forward(self, ids: Tensor, positions: Tensor, packed: Packed) -> Tensor:
        x = self._norm(embedding(ids, self._words).add_(embedding(positions, self._places)))
        if self._project is not None:
            x = self._project(x)
        for layer in self.layers:
            x = layer(x, packed)
        return x


def _take(module: Any, make: Make) -> Linear:
    made = make(module.weight, module.bias)
    module.weight = module.bias = None
    return made
