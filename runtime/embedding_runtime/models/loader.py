"""Loading a model: resolve its files, read its layout, load weights and tokenizer, name its identity, prove it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Model, ModelIdentity, Pooling
from embedding_runtime.errors import FingerprintMismatchError, ModelLoadError
from embedding_runtime.models.files import DirectoryError, read_object, require_object, require_vocabulary
from embedding_runtime.models.identity import identify
from embedding_runtime.models.layout import PASSAGE_PROMPTS, Layout, read_layout
from embedding_runtime.models.memory import free_bytes, keep_memory
from embedding_runtime.models.modules import Dense, LayerNorm
from embedding_runtime.models.preload import preload_torch
from embedding_runtime.models.processors import usable_processors
from embedding_runtime.models.profiles import is_nvidia_bidirectional, profile
from embedding_runtime.models.source import Progress, Source, resolve
from embedding_runtime.models.weights import find_weights
from embedding_runtime.openmp import set_wait_policy

_log = logging.getLogger(__name__)


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


def load_model(request: LoadRequest, progress: Progress) -> Model:
    """A model that passed its self-test.

    Raises ModelLoadError with the reason in one line, and FingerprintMismatchError.
    """
    try:
        source = resolve(request.model, request.revision, request.cache, progress)
        progress(f"loading {source.name}")
        layout = plan(request, source)
        return _load(request, source, layout, progress)
    except DirectoryError as error:
        raise ModelLoadError(request.model, str(error)) from error


def plan(request: LoadRequest, source: Source) -> Layout:
    """What is to be loaded, from the directory, the profile of a known model and the user's choices over both.

    Reads no weights but checks that they are there and whole, so that mistakes are said within a second.
    """
    layout = read_layout(source.directory)
    config = require_object(layout.transformer if layout else source.directory, "config.json")
    if layout is None:
        layout = profile(source.directory, config, (request.served_name or "", source.name), request.pooling)
    elif is_nvidia_bidirectional(config) and layout.default_prompt is None and layout.query_prompt:
        # What NIM does for its prefix models when a request does not say what the text is.
        layout = replace(layout, default_prompt="query")
    if request.pooling is not None:
        layout = replace(layout, poolings=(request.pooling,))
    prompts = dict(layout.prompts)
    if request.query_prompt is not None:
        prompts["query"] = request.query_prompt
    if request.passage_prompt is not None:
        prompts = {name: text for name, text in prompts.items() if name not in PASSAGE_PROMPTS}
        prompts["passage"] = request.passage_prompt
    sizes = tuple({*layout.matryoshka, *(config.get("matryoshka_dimensions") or [])})
    read_object(layout.transformer, "tokenizer.json")
    require_vocabulary(layout.transformer)
    find_weights(layout.transformer)
    for step in layout.steps:
        if isinstance(step, Dense | LayerNorm):
            find_weights(step.path)
    return replace(layout, prompts=prompts, matryoshka=sizes)


def _load(request: LoadRequest, source: Source, layout: Layout, progress: Progress) -> Model:
    policy = set_wait_policy(os.environ)
    preload_torch()
    import torch

    torch.set_num_threads(request.threads or usable_processors())
    kept = keep_memory()
    _log.info("%d threads compute; %s=%s (%s); freed memory is %s", torch.get_num_threads(), *policy,
              "kept for the next batch" if kept else "the C library's to give back")  # fmt: skip

    from embedding_runtime.models.accelerate import measure_speeds, realise
    from embedding_runtime.models.architecture import read_architecture
    from embedding_runtime.models.backbone import Backbone, load_backbone
    from embedding_runtime.models.embedder import Prompts, TextEmbedder, embed_tokens
    from embedding_runtime.models.precision import plans
    from embedding_runtime.models.projection import load_projection, output_size
    from embedding_runtime.models.selftest import SelfTestError, built_in_tokens, run_self_test
    from embedding_runtime.models.tokenizer import load_tokenizer

    device = torch.device(_device(request.device))
    architecture = read_architecture(layout.transformer)
    tokenizer, tokenizer_limit = load_tokenizer(layout.transformer, lowercase=layout.lowercase)
    projection = load_projection(layout.steps, device)
    tokens = built_in_tokens(tokenizer, architecture.max_positions)
    comparable = request.precision == "float32" or _fits_twice(layout, device.type)

    def load(dtype: Any) -> Backbone:
        return load_backbone(layout.transformer, architecture, dtype, device)

    progress(f"loading {source.name}: measuring what this {device.type} computes fast")
    ways = plans(request.precision, device.type, measure_speeds(request.precision, device.type), comparable=comparable)
    progress(f"loading {source.name}: weights")
    backbone, computation = realise(
        ways, load, lambda backbone: embed_tokens(backbone, layout, projection, tokens).numpy(), comparable=comparable
    )
    dimensions = output_size(layout.steps, backbone.hidden_size * len(layout.poolings))
    progress(f"computing the fingerprint of {source.name}")
    fingerprint, files = identify(source.directory, request.cache, layout, tokenizer.to_str(), backbone.prefixes)
    prompts = Prompts(layout.query_prompt, layout.passage_prompt, layout.prompts.get(layout.default_prompt or "", ""))
    limits = [limit for limit in (tokenizer_limit, backbone.max_positions) if limit]
    identity = ModelIdentity(
        id=request.served_name or _default_name(source),
        source=source.name,
        revision=source.revision,
        fingerprint=fingerprint,
        dimensions=dimensions,
        supported_dimensions=tuple(sorted({*(size for size in layout.matryoshka if size < dimensions), dimensions})),
        max_input_tokens=_max_tokens(request.max_input_tokens, layout.max_tokens, min(limits, default=None)),
        pooling="+".join(layout.poolings),
        normalized=layout.normalized,
        modalities=("text",),
        precision=computation.precision,
        prompts={name: text for name, text in (("query", prompts.query), ("passage", prompts.passage)) if text},
        files=files,
        computation=computation,
    )
    if request.expected_fingerprint and request.expected_fingerprint != identity.fingerprint:
        raise FingerprintMismatchError(request.expected_fingerprint, identity.fingerprint)
    model = TextEmbedder(identity, tokenizer, prompts, backbone, layout, projection)
    progress(f"testing {source.name}")
    try:
        run_self_test(model)
    except SelfTestError as error:
        raise DirectoryError(str(error)) from error
    return model


def _max_tokens(wanted: int | None, layout: int | None, capacity: int | None) -> int:
    """The limit of an input: the user's, else the layout's, never more than the model's positions reach."""
    chosen = wanted or layout or capacity
    if chosen is None:
        raise DirectoryError("says no maximum length; set --max-input-tokens (EMBEDDING_MAX_INPUT_TOKENS)")
    if wanted and capacity and wanted > capacity:
        raise DirectoryError(f"--max-input-tokens {wanted} is more than the model's {capacity}")
    return min(chosen, capacity or chosen)


def _default_name(source: Source) -> str:
    return source.directory.name if Path(source.name).is_dir() else source.name


def _device(wanted: str | None) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DirectoryError("no CUDA device is available; use --device Cpu, or give the container a GPU")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def _fits_twice(layout: Layout, device: str) -> bool:
    """Whether the model, stored in at least two bytes a number, fits into memory in float32 beside itself."""
    import torch

    stored = sum(path.stat().st_size for path in find_weights(layout.transformer).paths)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else free_bytes()
    # In float32, twice what is stored at most; and as much again converted, with something to spare.
    return 4 * stored <= free * 3 // 4
