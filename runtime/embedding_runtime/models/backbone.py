"""The transformer itself: stock transformers classes, never remote code, every weight accounted for."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedding_runtime.models.attention import NAME, Packed, register
from embedding_runtime.models.files import DirectoryError, require_object

# What embedding does not use: poolers and language-model heads may be absent, or be there and stay unread.
_UNUSED = re.compile(r"(^|\.)(pooler|lm_head|cls|classifier|position_ids|rotary_emb\.inv_freq)(\.|$)")
# Families whose position ids of real tokens start behind the padding id.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A loaded transformer that runs packed rows. `max_positions` is how many tokens its positions reach."""

    module: torch.nn.Module
    config: Any
    raw_config: dict[str, Any]
    position_offset: int
    max_positions: int | None
    prefixes: tuple[str, ...]

    def forward(self, ids: Tensor, positions: Tensor, packed: Packed) -> Tensor:
        """ids and positions [tokens] of texts laid end to end -> hidden states [tokens, size]."""
        hidden: Tensor = self.module(
            input_ids=ids[None], position_ids=positions[None] + self.position_offset, packed=packed
        ).last_hidden_state
        return hidden[0]


def load_backbone(directory: Path, dtype: torch.dtype, device: torch.device) -> Backbone:
    """Load the weights. Raises DirectoryError when the architecture is unknown or weights are missing or misshapen."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging

    raw = require_object(directory, "config.json")
    if "model_type" not in raw:
        raise DirectoryError("config.json names no model_type")
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise DirectoryError(
            f"model type {raw['model_type']!r} cannot be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    register()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        module, info = AutoModel.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation=NAME,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise DirectoryError(f"the weights cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    _check_loading(info)
    if getattr(module, "pooler", None) is not None:
        module.pooler = None
    module.requires_grad_(False).eval().to(device)
    offset = 0
    if raw["model_type"] in _OFFSET_POSITIONS:
        offset = int(config.pad_token_id if config.pad_token_id is not None else 1) + 1
    positions = getattr(config, "max_position_embeddings", None)
    prefix = getattr(module, "base_model_prefix", "")
    return Backbone(
        module, config, raw, offset, positions - offset if positions else None, (f"{prefix}.",) if prefix else ()
    )


def _check_loading(info: dict[str, Any]) -> None:
    missing = sorted(key for key in info["missing_keys"] if not _UNUSED.search(key))
    if missing:
        raise DirectoryError(f"{len(missing)} weights are missing, the first is {missing[0]!r}")
    unexpected = sorted(key for key in info["unexpected_keys"] if not _UNUSED.search(key))
    if unexpected:
        raise DirectoryError(f"{len(unexpected)} weights are not part of the model, the first is {unexpected[0]!r}")
    mismatched = sorted(str(key) for key in info["mismatched_keys"])
    if mismatched or info["error_msgs"]:
        raise DirectoryError(f"weights do not fit the configuration: {(mismatched or info['error_msgs'])[0]}")
