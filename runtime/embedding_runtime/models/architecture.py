"""Which stock transformers class runs a config.json, which way it looks, and whether it can run packed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding_runtime.models.files import DirectoryError, require_object

# Families tried packed against their stock padded forward (tests/runtime/models/test_families.py). Others run padded.
PACKED = frozenset({
    "albert", "bert", "camembert", "distilbert", "electra", "embedding_gemma2_text", "ernie", "eurobert", "gemma3_text",
    "jina_embeddings_v3", "llama", "ministral3", "mistral", "modernbert", "nomic_bert", "qwen2", "qwen3", "roberta",
    "xlm-roberta",
})  # fmt: skip
# Families whose linear layers are replaced by packed ones, tried there too: what reads a layer's weight would fail.
LINEAR = PACKED | {"deberta-v2", "mpnet", "roformer"}
# Names of NVIDIA's remote code, and the stock class that computes the same when it looks both ways.
_BIDIRECTIONAL = {"llama_bidirec": "llama", "ministral3_bidirec": "ministral3"}
# Families whose position ids of real tokens start behind the padding id.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}
# Keys of nomic_bert's original remote code, and what the stock class calls them.
_NOMIC_KEYS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
# Models of several modalities whose text part is served: its family, under `language_model` and `text_config`.
_TEXT_PARTS = {"embedding_gemma2": "embedding_gemma2_text"}
# transformers writes frequencies for the batch at hand into the module for these (modeling_rope_utils.py).
_GROWING_ROPE = ("dynamic", "longrope")
_DECODERS = frozenset({"gemma3_text", "llama", "ministral3", "mistral", "qwen2", "qwen3"})


@dataclass(frozen=True, slots=True)
class Architecture:
    """A stock configuration and how to run it. `is_causal` is None for encoders whose class decides by itself."""

    family: str
    config: Any
    packed: bool
    is_causal: bool
    position_offset: int

    @property
    def max_positions(self) -> int | None:
        """How many tokens of a text its positions reach; None when any number."""
        reach = getattr(self.config, "max_position_embeddings", None)
        return int(reach) - self.position_offset if reach and reach > 0 else None

    @property
    def is_stateless(self) -> bool:
        """Whether the stock class keeps nothing of a batch in the module, as rotary embeddings that grow with it do."""
        parameters = getattr(self.config, "rope_parameters", None) or {}
        kinds = [parameters, *(part for part in parameters.values() if isinstance(part, dict))]
        return not any(grow in str(kind.get("rope_type")) for kind in kinds for grow in _GROWING_ROPE)


def read_architecture(directory: Path) -> Architecture:
    """The architecture of config.json. Raises DirectoryError when no stock class runs it."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    raw = require_object(directory, "config.json")
    declared = raw.get("model_type")
    if not isinstance(declared, str):
        raise DirectoryError("config.json names no model_type")
    if "quantization_config" in raw:
        raise DirectoryError("config.json: quantised checkpoints are not supported; use the full-precision one")
    family = _BIDIRECTIONAL.get(declared, declared)
    try:
        if family != declared or family == "nomic_bert":
            config = CONFIG_MAPPING[family](**_stock_keys(family, raw))
        else:
            config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DirectoryError(f"model type {declared!r} cannot be loaded: {reason}") from error
    _require_text_encoder(declared, family, config)
    is_causal = family in _DECODERS and not _looks_both_ways(declared, raw)
    if family in _DECODERS:
        config.use_cache = False
        config.is_causal = is_causal
        if family == "gemma3_text":
            config.use_bidirectional_attention = not is_causal
    offset = 0
    if family in _OFFSET_POSITIONS:
        offset = int(config.pad_token_id if config.pad_token_id is not None else 1) + 1
    return Architecture(family, config, _TEXT_PARTS.get(family, family) in PACKED, is_causal, offset)


def _require_text_encoder(declared: str, family: str, config: Any) -> None:
    """Raises DirectoryError for what has no hidden state for each token of a text, which is all that can be pooled."""
    if getattr(config, "is_encoder_decoder", False):
        raise DirectoryError(f"model type {declared!r} is an encoder-decoder, which is not supported; use an encoder")
    size = getattr(config, "hidden_size", None) or getattr(config, "dim", None)
    if family not in _TEXT_PARTS and not (size and getattr(config, "vocab_size", None)):
        raise DirectoryError(
            f"model type {declared!r} has no hidden state for each token of a text, so nothing to pool; use a text "
            "encoder, or of the models with a tower for texts and one for images clip and siglip (without --pooling)"
        )


def text_part(architecture: Architecture) -> Architecture | None:
    """The text part of a model of several modalities; None when text is all the model takes."""
    family = _TEXT_PARTS.get(architecture.family)
    return None if family is None else replace(architecture, family=family, config=architecture.config.text_config)


def _looks_both_ways(declared: str, raw: dict[str, Any]) -> bool:
    return declared in _BIDIRECTIONAL or raw.get("is_causal") is False or raw.get("use_bidirectional_attention") is True


def _stock_keys(family: str, raw: dict[str, Any]) -> dict[str, Any]:
    """The keys of config.json under the names the stock class knows, without those of remote code."""
    kept = {key: value for key, value in raw.items() if key not in {"model_type", "auto_map", "architectures"}}
    if family == "nomic_bert":
        kept = {_NOMIC_KEYS.get(key, key): value for key, value in kept.items()}
    copied: dict[str, Any] = json.loads(json.dumps(kept))
    return copied
