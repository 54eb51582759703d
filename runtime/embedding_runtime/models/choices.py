"""What a user may choose about loading a model, and what that comes to on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import InputType, Pooling
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.layout import Layout
from embedding_runtime.models.source import Source


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load and how. None means: as the model says, or as the machine allows."""

    model: str
    revision: str | None = None
    served_name: str | None = None
    cache: Path = Path("/tmp/embedding-runtime")  # noqa: S108 (the one place every container may write)
    max_input_tokens: int | None = None
    pooling: Pooling | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    precision: str | None = None
    device: str | None = None
    expected_fingerprint: str | None = None
    threads: int | None = None
    workers: int | None = None
    max_image_bytes: int = 25 * 1024 * 1024


def max_tokens(wanted: int | None, layout: int | None, capacity: int | None) -> int:
    """The limit of an input: the user's, else the layout's, never more than the model's positions reach."""
    chosen = wanted or layout or capacity
    if chosen is None:
        raise DirectoryError("says no maximum length; set --max-input-tokens (EMBEDDING_MAX_INPUT_TOKENS)")
    if wanted and capacity and wanted > capacity:
        raise DirectoryError(f"--max-input-tokens {wanted} is more than the model's {capacity}")
    return min(chosen, capacity or chosen)


def input_limits(
    wanted: int | None, layout: Layout, tokenizer: int | None, positions: int | None
) -> dict[InputType | None, int]:
    """The limits of inputs in tokens by what they are: the user's, else as the layout says, else the tokenizer's.

    A length the layout says counts for more than the tokenizer's, as in sentence-transformers; none reaches beyond the
    model's positions.
    """
    every = max_tokens(wanted, layout.max_tokens or tokenizer, positions)
    told = {InputType.QUERY: layout.query_tokens, InputType.PASSAGE: layout.passage_tokens}
    if wanted is not None:
        told = {}
    return {None: every} | {kind: max_tokens(None, told.get(kind) or every, positions) for kind in InputType}


def default_name(source: Source) -> str:
    """The id of a model that was given none: its repository's name, or its directory's."""
    return source.directory.name if Path(source.name).is_dir() else source.name


def choose_device(wanted: str | None) -> str:
    """torch's name of where to compute; by itself CUDA where there is a device. Raises DirectoryError without one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DirectoryError("no CUDA device is available; use --device Cpu, or give the container a GPU")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(wanted: str | None, device: str) -> tuple[Any, str]:
    """torch's dtype and its public name for a model with images; by itself float32 on CPU and bfloat16 on CUDA."""
    import torch

    if wanted == "int8":
        raise DirectoryError("precision Int8 is for models of text only; use Auto, Float32, BFloat16 or Float16")
    name = wanted or ("bfloat16" if device == "cuda" else "float32")
    return getattr(torch, name), name
