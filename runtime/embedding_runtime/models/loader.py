"""Loading a model: resolve its files, read its layout, load weights and tokenizer, name its identity, prove it."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from typing import Any

from embedding_runtime.engine.model import Model, ModelIdentity
from embedding_runtime.errors import FingerprintMismatchError, ModelLoadError
from embedding_runtime.models.advance import Progress, read_ahead
from embedding_runtime.models.choices import LoadRequest, choose_device, default_name, input_limits
from embedding_runtime.models.dual_layout import is_dual
from embedding_runtime.models.files import DirectoryError, read_object, require_object, require_vocabulary
from embedding_runtime.models.identity import identify
from embedding_runtime.models.layout import PASSAGE_PROMPTS, Layout, read_layout, weight_folders
from embedding_runtime.models.memory import free_bytes, keep_memory
from embedding_runtime.models.modules import Dense, LayerNorm
from embedding_runtime.models.preload import preload_torch
from embedding_runtime.models.processors import usable_processors
from embedding_runtime.models.profiles import is_nvidia_bidirectional, profile, trained_sizes
from embedding_runtime.models.source import Source, resolve
from embedding_runtime.models.vl_config import is_vision_language
from embedding_runtime.models.weights import find_weights
from embedding_runtime.openmp import set_wait_policy

_log = logging.getLogger(__name__)

__all__ = ["LoadRequest", "load_model", "plan"]


def load_model(request: LoadRequest, progress: Progress) -> Model:
    """A model that passed its self-test.

    Raises ModelLoadError with the reason in one line, and FingerprintMismatchError.
    """
    try:
        source = resolve(request.model, request.revision, request.cache, progress)
        progress(f"loading {source.name}")
        if is_vision_language(source.directory):
            return _load_vision_language(request, source, progress)
        if is_dual(source.directory):
            return _load_dual(request, source, progress)
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
    names = (request.served_name or "", source.name)
    if layout is None:
        layout = profile(source.directory, config, names, request.pooling)
    elif is_nvidia_bidirectional(config, names):
        layout = replace(layout, matryoshka=layout.matryoshka or trained_sizes(config))
        if layout.default_prompt is None and layout.query_prompt:
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


def _read_weights(source: Source, progress: Progress) -> None:
    """Read the weights from wherever they lie, telling how far that is; what is wrong with them is said later."""
    with contextlib.suppress(DirectoryError):
        paths = [path for folder in weight_folders(source.directory) for path in find_weights(folder).paths]
        read_ahead(paths, f"loading {source.name}", progress)


def _prepare_torch(request: LoadRequest) -> None:
    policy = set_wait_policy(os.environ)
    preload_torch()
    import torch

    from embedding_runtime.models.lean import import_lean

    torch.set_num_threads(request.threads or usable_processors())
    import_lean()
    kept = keep_memory()
    _log.info("%d threads compute; %s=%s (%s); freed memory is %s", torch.get_num_threads(), *policy,
              "kept for the next batch" if kept else "the C library's to give back")  # fmt: skip


def _load_vision_language(request: LoadRequest, source: Source, progress: Progress) -> Model:
    _read_weights(source, progress)
    _prepare_torch(request)
    from embedding_runtime.models.vl_loader import load_vision_language

    return load_vision_language(request, source, progress)


def _load_dual(request: LoadRequest, source: Source, progress: Progress) -> Model:
    _read_weights(source, progress)
    _prepare_torch(request)
    from embedding_runtime.models.dual_loader import load_dual

    return load_dual(request, source, progress)


def _load(request: LoadRequest, source: Source, layout: Layout, progress: Progress) -> Model:
    _read_weights(source, progress)
    _prepare_torch(request)
    import torch

    from embedding_runtime.models.accelerate import measure_speeds, realise
    from embedding_runtime.models.architecture import read_architecture
    from embedding_runtime.models.backbone import Backbone, load_backbone
    from embedding_runtime.models.embedder import Prompts, TextEmbedder, embed_tokens
    from embedding_runtime.models.precision import plans
    from embedding_runtime.models.projection import load_projection, output_size
    from embedding_runtime.models.selftest import SelfTestError, built_in_tokens, run_self_test
    from embedding_runtime.models.shares import shares
    from embedding_runtime.models.tokenizer import load_tokenizer

    device = torch.device(choose_device(request.device))
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
    fingerprint, files = identify(source, request.cache, layout, tokenizer.to_str(), backbone.prefixes, progress)
    prompts = Prompts(layout.query_prompt, layout.passage_prompt, layout.prompts.get(layout.default_prompt or "", ""))
    limits = input_limits(request.max_input_tokens, layout, tokenizer_limit, backbone.max_positions)
    identity = ModelIdentity(
        id=request.served_name or default_name(source),
        source=source.name,
        revision=source.revision,
        fingerprint=fingerprint,
        dimensions=dimensions,
        supported_dimensions=tuple(sorted({*(size for size in layout.matryoshka if size < dimensions), dimensions})),
        max_input_tokens=max(limits.values()),
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
    parts = shares(device.type, request.workers, architecture.config, concurrent=architecture.is_stateless)
    _log.info("%d batches are computed side by side", parts.workers)
    model = TextEmbedder(identity, tokenizer, limits, prompts, backbone, layout, projection, parts)
    progress(f"testing {source.name}")
    try:
        run_self_test(model)
    except SelfTestError as error:
        raise DirectoryError(str(error)) from error
    return model


def _fits_twice(layout: Layout, device: str) -> bool:
    """Whether the model, stored in at least two bytes a number, fits into memory in float32 beside itself."""
    import torch

    stored = sum(path.stat().st_size for path in find_weights(layout.transformer).paths)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else free_bytes()
    # In float32, twice what is stored at most; and as much again converted, with something to spare.
    return 4 * stored <= free * 3 // 4
