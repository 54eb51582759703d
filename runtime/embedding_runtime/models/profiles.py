"""What plain Hugging Face directories, without sentence-transformers' modules.json, do not say about themselves.

A wrong guess gives plausible, wrong vectors, so there is no default: a model is known here or the user says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Pooling
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.layout import Layout

# NVIDIA's names for poolings in config.json.
NVIDIA_POOLINGS = {
    "avg": Pooling.MEAN,
    "mean": Pooling.MEAN,
    "cls": Pooling.CLS,
    "cls_last": Pooling.CLS,
    "last": Pooling.LAST_TOKEN,
}
_NVIDIA_PROMPTS = {"query": "query: ", "passage": "passage: "}
# Sizes the llama_bidirec embedding models of 2048 numbers are trained for, as their cards list them. The larger
# llama-embed-nemotron-8b has its full size only, and so has the Ministral3-based nemotron-3-embed-1b.
_LLAMA_MATRYOSHKA = (384, 512, 768, 1024, 2048)
_LLAMA_MAX_TOKENS = 8192
_MINISTRAL_MAX_TOKENS = 4096
_REMOTE_TYPES = ("llama_bidirec", "ministral3_bidirec")
_STOCK_TYPES = ("llama", "ministral3", "mistral")
_NVIDIA_NAME = re.compile(r"^nvidia/|nemotron|nemoretriever|nv-embed", re.IGNORECASE)


def is_nvidia_bidirectional(config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether a config.json is of one of NVIDIA's decoders that were made to look both ways.

    By its remote model type; for a stock type by NVIDIA's own architecture or key in config.json, or by what the model
    is called: others make such decoders too, with other prompts.
    """
    kind = config.get("model_type")
    if kind in _REMOTE_TYPES:
        return True
    if kind not in _STOCK_TYPES or config.get("is_causal") is not False:
        return False
    architectures = config.get("architectures") or []
    return (
        any(str(name).endswith("BidirectionalModel") for name in architectures)
        or config.get("pooling") in NVIDIA_POOLINGS
        or any(_NVIDIA_NAME.search(name) for name in names)
    )


def trained_sizes(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes the vectors of one of NVIDIA's decoders may be cut to, beside its full size."""
    is_llama = str(config.get("model_type")).startswith("llama")
    return _LLAMA_MATRYOSHKA if is_llama and int(config.get("hidden_size") or 0) <= _LLAMA_MATRYOSHKA[-1] else ()


def profile(directory: Path, config: Mapping[str, Any], names: tuple[str, ...], pooling: Pooling | None) -> Layout:
    """The layout of a directory without modules.json. `names` are what the model is called; the user's pooling wins.

    Raises DirectoryError, saying what to set, for a model that is not known.
    """
    if is_nvidia_bidirectional(config, names):
        return _bidirectional(directory, config, pooling)
    known = {name.rsplit("/", 1)[-1].lower() for name in names}
    if config.get("model_type") == "bert" and "nv-embedqa-e5-v5" in known:
        return Layout(
            directory, (pooling or Pooling.MEAN,), True, max_tokens=512, prompts=_NVIDIA_PROMPTS, default_prompt="query"
        )
    if config.get("model_type") == "xlm-roberta" and "bge-m3" in known:
        return Layout(directory, (pooling or Pooling.CLS,), True, max_tokens=8192)
    if pooling is None:
        raise DirectoryError(
            "modules.json is missing and the model is not known; say how to pool with --pooling (EMBEDDING_POOLING)"
        )
    return Layout(directory, (pooling,), True)


def _bidirectional(directory: Path, config: Mapping[str, Any], pooling: Pooling | None) -> Layout:
    named = config.get("pooling")
    if pooling is None:
        # The pooling is required: picking one silently gives wrong vectors.
        if named not in NVIDIA_POOLINGS:
            raise DirectoryError(f"config.json: pooling {named!r} is not one of {', '.join(NVIDIA_POOLINGS)}")
        pooling = NVIDIA_POOLINGS[str(named)]
    return Layout(
        directory,
        (pooling,),
        True,
        max_tokens=_LLAMA_MAX_TOKENS if str(config["model_type"]).startswith("llama") else _MINISTRAL_MAX_TOKENS,
        prompts=_NVIDIA_PROMPTS,
        default_prompt="query",
        matryoshka=trained_sizes(config),
    )
