"""The transformer itself: stock transformers classes, never remote code, every weight accounted for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedding_runtime.models.architecture import Architecture, text_part
from embedding_runtime.models.attention import NAME, pack, register, to_device
from embedding_runtime.models.bert import BertEncoder
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.lean import leanly
from embedding_runtime.models.weights import find_weights

# What embedding does not use: poolers and language-model heads may be absent, or be there and stay unread.
_UNUSED = re.compile(r"(^|\.)(pooler|lm_head|cls|classifier|position_ids|rotary_emb\.inv_freq)(\.|$)")

# Batches of more tokens than the first are filled up to a multiple of the second.
_FEW, _ROUND = 64, 16


@dataclass(frozen=True, slots=True)
class Backbone:
    """A loaded transformer: a stock module, or the encoder of ours that took its weights.

    `prefixes` is what exporters may put before the name of every weight.
    """

    module: torch.nn.Module
    architecture: Architecture
    device: torch.device
    prefixes: tuple[str, ...] = ()

    @property
    def hidden_size(self) -> int:
        config = self.architecture.config
        if self.architecture.family == "embedding_gemma2_text":
            # Its last layer projects every token to the embedding's size.
            return int(config.embedding_dim)
        return int(getattr(config, "hidden_size", 0) or config.dim)

    @property
    def max_positions(self) -> int | None:
        return self.architecture.max_positions

    @property
    def layers(self) -> Sequence[torch.nn.Module]:
        """The transformer's layers: its longest list of modules."""
        lists = (module for module in self.module.modules() if isinstance(module, torch.nn.ModuleList))
        return list(max(lists, key=len, default=()))

    def forward(self, texts: Sequence[NDArray[np.int32]]) -> Tensor:
        """Token ids of texts -> hidden states of all their tokens end to end [tokens, size]."""
        return self._forward_packed(texts) if self.architecture.packed else self._forward_padded(texts)

    def _forward_packed(self, texts: Sequence[NDArray[np.int32]]) -> Tensor:
        tokens = sum(len(ids) for ids in texts)
        if self.device.type == "cpu" and (filler := filling(tokens)):
            texts = [*texts, np.zeros(filler, np.int32)]
        lengths = [len(ids) for ids in texts]
        starts = np.cumsum([0, *lengths[:-1]])
        positions = np.arange(sum(lengths)) - np.repeat(starts, lengths) + self.architecture.position_offset
        ids = to_device(torch.from_numpy(np.concatenate(texts).astype(np.int64)), self.device)
        places = to_device(torch.from_numpy(positions), self.device)
        packed = pack(lengths, self.device, causal=self.architecture.is_causal)
        if isinstance(self.module, BertEncoder):
            states: Tensor = self.module(ids, places, packed)
            return states[:tokens]
        hidden: Tensor = self.module(input_ids=ids[None], position_ids=places[None], packed=packed).last_hidden_state
        return hidden[0, :tokens]

    def _forward_padded(self, texts: Sequence[NDArray[np.int32]]) -> Tensor:
        parts = [self._forward_group(texts[group]) for group in similar([len(ids) for ids in texts])]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _forward_group(self, texts: Sequence[NDArray[np.int32]]) -> Tensor:
        lengths = [len(ids) for ids in texts]
        padding = getattr(self.architecture.config, "pad_token_id", None) or 0
        ids = np.full((len(texts), max(lengths)), padding, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        kept = to_device(torch.from_numpy(mask), self.device)
        hidden: Tensor = self.module(
            input_ids=to_device(torch.from_numpy(ids), self.device), attention_mask=kept
        ).last_hidden_state
        return hidden[kept.bool()]


def filling(tokens: int) -> int:
    """How many tokens of no text make a batch's number a round one, on a CPU.

    oneDNN compiles code for every number of rows it meets and keeps it: hundreds of megabytes after as many different
    batches. Lone short texts are left as they are, because there each token costs.
    """
    return 0 if tokens <= _FEW else -tokens % _ROUND


def similar(lengths: Sequence[int], most_padding: float = 0.2) -> list[slice]:
    """Neighbours that are padded to one length together: as many as leave at most this part of what is computed to
    padding. Texts of a batch come sorted by length."""
    groups: list[slice] = []
    begin = tokens = 0
    longest = 0
    for index, length in enumerate(lengths):
        widest = max(longest, length)
        if index > begin and tokens + length < (1 - most_padding) * widest * (index + 1 - begin):
            groups.append(slice(begin, index))
            begin, tokens, widest = index, 0, length
        longest = widest
        tokens += length
    return [*groups, slice(begin, len(lengths))]


def load_backbone(directory: Path, architecture: Architecture, dtype: torch.dtype, device: torch.device) -> Backbone:
    """Load the weights. Raises DirectoryError when weights are missing, left over or of the wrong shape."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING
    from transformers.utils import logging as transformers_logging

    register()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model_class = leanly(lambda: MODEL_MAPPING[type(architecture.config)])
    except KeyError as error:
        raise DirectoryError(f"model type {architecture.family!r} has no stock model class") from error
    try:
        module, info = leanly(
            lambda: model_class.from_pretrained(
                directory,
                config=architecture.config,
                dtype=dtype,
                attn_implementation=NAME if architecture.packed else "eager",
                local_files_only=True,
                output_loading_info=True,
                # So that what does not fit is named below rather than in a report.
                ignore_mismatched_sizes=True,
            )
        )
    except Exception as error:
        if "Weights only load failed" in str(error):
            name = find_weights(directory).paths[0].name
            raise DirectoryError(
                f"{name} holds something other than tensors; it is not read, as it may be code"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DirectoryError(f"the weights cannot be loaded: {reason}") from error
    _check_loading(info)
    if (text := text_part(architecture)) is not None:
        # Loaded whole, so that every weight is accounted for; the other towers are given back.
        module, architecture = module.language_model, text
    if getattr(module, "pooler", None) is not None:
        module.pooler = None
    module.requires_grad_(False).eval().to(device)
    prefix = getattr(module, "base_model_prefix", "")
    return Backbone(module, architecture, device, (f"{prefix}.",) if prefix else ())


def _check_loading(info: dict[str, Any]) -> None:
    missing = sorted(key for key in info["missing_keys"] if not _UNUSED.search(key))
    if missing:
        raise DirectoryError(f"{len(missing)} weights are missing, the first is {missing[0]!r}")
    unexpected = sorted(key for key in info["unexpected_keys"] if not _UNUSED.search(key))
    if unexpected:
        raise DirectoryError(f"{len(unexpected)} weights are not part of the model, the first is {unexpected[0]!r}")
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    if mismatched or info["error_msgs"]:
        raise DirectoryError(f"weights do not fit the configuration: {(mismatched or info['error_msgs'])[0]!r}")
