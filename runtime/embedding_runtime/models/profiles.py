"""What plain Hugging Face directories, without sentence-transformers' modules.json, do not say about themselves.

A wrong guess gives plausible, wrong vectors, so there is no default: a model is known here or the user says it.
"""

from __future__ import annotations

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
# Sizes the llama_bidirec embedding models are trained for, as their cards list them.
_NVIDIA_MATRYOSHKA = (384, 512, 768, 1024, 2048)
_NVIDIA_MAX_TOKENS = 8192
_BIDIRECTIONAL = ("llama_bidirec", "ministral3_bidirec")


def is_nvidia_bidirectional(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of NVIDIA's decoders that were made to look both ways."""
    kind = config.get("model_type")
    return kind in _BIDIRECTIONAL or (kind in ("llama", "ministral3", "mistral") and config.get("is_causal") is False)


def profile(directory: Path, config: Mapping[str, Any], names: tuple[str, ...], pooling: Pooling | None) -> Layout:
    """The layout of a directory without modules.json. `names` are what the model is called; the user's pooling wins.

    Raises DirectoryError, saying what to set, for a model that is not known.
    """
    if is_nvidia_bidirectional(config):
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
        max_tokens=_NVIDIA_MAX_TOKENS,
        prompts=_NVIDIA_PROMPTS,
        default_prompt="query",
        matryoshka=_NVIDIA_MATRYOSHKA,
    )
