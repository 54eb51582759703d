"""The towers of a llama_nemotron_vl checkpoint: whichever form its names have, every weight accounted for."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from embedding_runtime.models.architecture import Architecture
from embedding_runtime.models.attention import NAME, register
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.lean import leanly
from embedding_runtime.models.loading import check_loaded, check_names
from embedding_runtime.models.vl_config import VisionLanguage
from embedding_runtime.models.weights import WeightFiles, find_weights

# Exporters of transformers before 5 wrote the vision tower's name twice.
_NESTED = "vision_model.vision_model."
# The tower's pooling head is part of SigLIP, not of this model; buffers that older versions stored.
_UNUSED = re.compile(r"^vision_model\.head\.|(^|\.)(position_ids|rotary_emb\.inv_freq)$")
_REMOTE_KEYS = {"architectures", "auto_map", "model_type", "pooling", "temperature", "torch_dtype", "dtype"}


def canonical_name(name: str) -> str | None:
    """The name of a weight in the newer form; None for what no vector depends on."""
    if name.startswith(_NESTED):
        name = "vision_model." + name.removeprefix(_NESTED)
    return None if _UNUSED.search(name) else name


def read_weights(files: WeightFiles) -> dict[str, Tensor]:
    """Every weight by its canonical name. Raises DirectoryError for files that cannot be read or are of a reranker."""
    weights: dict[str, Tensor] = {}
    for path in files.paths:
        try:
            if files.is_safetensors:
                weights |= load_file(path)
            else:
                weights |= torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
            raise DirectoryError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error
    if any(name.removeprefix("model.").startswith("score.") for name in weights):
        raise DirectoryError("is a reranker (its weights have a score): it gives no embeddings")
    return {known: tensor for name, tensor in weights.items() if (known := canonical_name(name)) is not None}


def language_architecture(settings: VisionLanguage) -> Architecture:
    """The bidirectional Llama of llm_config. Raises DirectoryError when its vocabulary lacks the token of images."""
    from transformers import LlamaConfig

    stock = json.loads(json.dumps({key: value for key, value in settings.language.items() if key not in _REMOTE_KEYS}))
    is_causal = bool(stock.pop("is_causal", False))
    config = LlamaConfig(**stock)
    if not 0 <= settings.image_token < config.vocab_size:
        raise DirectoryError(
            f"config.json: img_context_token_id is {settings.image_token}, "
            f"but the vocabulary has {config.vocab_size} tokens"
        )
    config.use_cache = False
    config.is_causal = is_causal
    return Architecture("llama", config, packed=True, is_causal=is_causal, position_offset=0)


def load_towers(
    settings: VisionLanguage, architecture: Architecture, dtype: torch.dtype, device: torch.device
) -> tuple[torch.nn.Module, torch.nn.Sequential, torch.nn.Module]:
    """The vision tower, the projector and the language model.

    Raises DirectoryError when weights are missing, left over or of the wrong shape.
    """
    import transformers
    from transformers import SiglipVisionConfig
    from transformers.utils import logging as transformers_logging

    register()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    weights = read_weights(find_weights(settings.layout.transformer))
    parts = {prefix: _part(weights, prefix) for prefix in ("vision_model.", "mlp1.", "language_model.")}
    known = sum(map(len, parts.values()))
    if known != len(weights):
        stray = next(name for name in sorted(weights) if not name.startswith(tuple(parts)))
        raise DirectoryError(f"{len(weights) - known} weights are not part of the model, the first is {stray!r}")
    del weights
    vision_keys = {key: value for key, value in settings.vision.items() if key not in _REMOTE_KEYS}
    vision_config = SiglipVisionConfig(**{**vision_keys, "vision_use_head": False})
    sees, reads = leanly(lambda: (transformers.SiglipVisionModel, transformers.LlamaModel))
    vision = _stock(sees, vision_config, parts["vision_model."], dtype, "sdpa", "vision_model.")
    language = _stock(reads, architecture.config, parts["language_model."], dtype, NAME, "language_model.")
    inner = int(vision_config.hidden_size) * settings.downsample**2
    projector = _projector(inner, int(architecture.config.hidden_size), parts["mlp1."]).to(dtype)
    for module in (vision, projector, language):
        module.requires_grad_(False).eval().to(device)
    return vision, projector, language


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _stock(
    kind: Any, config: Any, weights: dict[str, Tensor], dtype: torch.dtype, attention: str, prefix: str
) -> torch.nn.Module:
    try:
        module, info = leanly(
            lambda: kind.from_pretrained(
                None, config=config, state_dict=weights, dtype=dtype, attn_implementation=attention,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )
        )  # fmt: skip
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DirectoryError(f"the weights cannot be loaded: {reason}") from error
    check_loaded(info, prefix)
    loaded: torch.nn.Module = module
    return loaded


def _projector(inner: int, size: int, weights: dict[str, Tensor]) -> torch.nn.Sequential:
    """Normalisation and two layers, from the patches of a token to the language model's size."""
    module = torch.nn.Sequential(
        torch.nn.LayerNorm(inner), torch.nn.Linear(inner, size), torch.nn.GELU(), torch.nn.Linear(size, size)
    )
    expected = {name: parameter.shape for name, parameter in module.named_parameters()}
    check_names("mlp1.", expected.keys() - weights.keys(), "are missing")
    check_names("mlp1.", weights.keys() - expected.keys(), "are not part of the model")
    check_names("mlp1.", (name for name, shape in expected.items() if weights[name].shape != shape), "do not fit")
    module.load_state_dict(weights)
    return module
