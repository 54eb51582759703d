"""Loading a model: resolve its files, read its layout, load weights and tokenizer, name its identity, prove it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Model, ModelFile, ModelIdentity
from embedding_runtime.errors import FingerprintMismatchError, ModelLoadError
from embedding_runtime.models import identity_cache
from embedding_runtime.models.files import DirectoryError, read_object, require_object
from embedding_runtime.models.fingerprint import (
    PREPROCESSING_VERSION,
    canonical_config,
    canonical_tensors,
    canonical_tokenizer,
    file_sha256,
    fingerprint,
)
from embedding_runtime.models.layout import Layout, Pooling, read_layout
from embedding_runtime.models.source import Progress, Source, resolve
from embedding_runtime.models.weights import find_weights, stored_tensors


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


def load_model(request: LoadRequest, progress: Progress) -> Model:
    """A model that passed its self-test.

    Raises ModelLoadError with the reason in one line, and FingerprintMismatchError.
    """
    try:
        source = resolve(request.model, request.revision, request.cache, progress)
        progress(f"loading {source.name}")
        return _load(request, source, progress)
    except DirectoryError as error:
        raise ModelLoadError(request.model, str(error)) from error


def _load(request: LoadRequest, source: Source, progress: Progress) -> Model:
    layout = _apply(request, read_layout(source.directory), source.directory)
    # Cheap checks first: what is missing or broken is said before the libraries are imported.
    require_object(layout.transformer, "config.json")
    read_object(layout.transformer, "tokenizer.json")
    find_weights(layout.transformer)
    for layer in layout.dense:
        find_weights(layer.path)

    import torch

    from embedding_runtime.models.backbone import load_backbone
    from embedding_runtime.models.embedder import Prompts, TextEmbedder
    from embedding_runtime.models.projection import load_projection
    from embedding_runtime.models.selftest import SelfTestError, run_self_test
    from embedding_runtime.models.tokenizer import load_tokenizer

    device = _device(request.device)
    dtype, precision = _precision(request.precision, device)
    tokenizer, tokenizer_limit = load_tokenizer(layout.transformer, lowercase=layout.lowercase)
    backbone = load_backbone(layout.transformer, dtype, torch.device(device))
    projection = load_projection(layout.dense, torch.device(device))
    hidden = int(getattr(backbone.config, "hidden_size", 0) or backbone.config.dim)
    dimensions = layout.dense[-1].out_features if layout.dense else hidden * len(layout.poolings)
    progress(f"computing the fingerprint of {source.name}")
    prompts = Prompts(
        query=layout.prompts.get("query", ""),
        passage=next((layout.prompts[name] for name in _PASSAGE_PROMPTS if name in layout.prompts), ""),
        default=layout.prompts.get(layout.default_prompt or "", ""),
    )
    print_, files = _identify(request, source, layout, tokenizer.to_str(), backbone)
    limits = [limit for limit in (tokenizer_limit, backbone.max_positions) if limit]
    identity = ModelIdentity(
        id=request.served_name or _default_name(source),
        source=source.name,
        revision=source.revision,
        fingerprint=print_,
        dimensions=dimensions,
        supported_dimensions=(dimensions,),
        max_input_tokens=_max_tokens(request.max_input_tokens, layout.max_tokens, min(limits, default=None)),
        pooling="+".join(layout.poolings),
        normalized=layout.normalized,
        modalities=("text",),
        precision=precision,
        prompts={name: text for name, text in (("query", prompts.query), ("passage", prompts.passage)) if text},
        files=files,
    )
    if request.expected_fingerprint and request.expected_fingerprint != identity.fingerprint:
        raise FingerprintMismatchError(request.expected_fingerprint, identity.fingerprint)
    model = TextEmbedder(identity, tokenizer, prompts, backbone, layout.poolings, projection, torch.device(device))
    progress(f"testing {source.name}")
    try:
        run_self_test(model)
    except SelfTestError as error:
        raise DirectoryError(str(error)) from error
    return model


# The order in which sentence-transformers looks for the prompt of a document.
_PASSAGE_PROMPTS = ("document", "passage", "corpus")


def _apply(request: LoadRequest, layout: Layout | None, directory: Path) -> Layout:
    """The directory's layout with the user's choices put over it."""
    if layout is None:
        if request.pooling is None:
            raise DirectoryError("modules.json is missing; say how to pool with --pooling (EMBEDDING_POOLING)")
        layout = Layout(directory, (request.pooling,), True, (), True, None, False)
    if not layout.include_prompt:
        raise DirectoryError("pooling that leaves out the prompt (include_prompt: false) is not supported")
    if request.pooling is not None:
        layout = replace(layout, poolings=(request.pooling,))
    prompts = dict(layout.prompts)
    if request.query_prompt is not None:
        prompts["query"] = request.query_prompt
    if request.passage_prompt is not None:
        prompts = {name: text for name, text in prompts.items() if name not in _PASSAGE_PROMPTS}
        prompts["passage"] = request.passage_prompt
    return replace(layout, prompts=prompts)


def _max_tokens(wanted: int | None, layout: int | None, capacity: int | None) -> int:
    """The limit of an input: the user's, else the layout's, never more than the model's positions reach."""
    chosen = wanted or layout or capacity
    if chosen is None:
        raise DirectoryError("says no maximum length; set --max-input-tokens (EMBEDDING_MAX_INPUT_TOKENS)")
    if wanted and capacity and wanted > capacity:
        raise DirectoryError(f"--max-input-tokens {wanted} is more than the model's {capacity}")
    return min(chosen, capacity or chosen)


def _default_name(source: Source) -> str:
    return source.directory.name if Path(source.name).is_absolute() or source.name.startswith(".") else source.name


def _device(wanted: str | None) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DirectoryError("no CUDA device is available; use --device Cpu, or give the container a GPU")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def _precision(wanted: str | None, device: str) -> tuple[Any, str]:
    """torch's dtype and its public name; by itself float32 on CPU and bfloat16 on CUDA."""
    import torch

    if wanted == "int8":
        raise DirectoryError("precision Int8 is not available yet; use Auto, Float32, BFloat16 or Float16")
    name = wanted or ("bfloat16" if device == "cuda" else "float32")
    return getattr(torch, name), name


def _identify(
    request: LoadRequest, source: Source, layout: Layout, tokenizer: str, backbone: Any
) -> tuple[str, tuple[ModelFile, ...]]:
    """The fingerprint and the hashed files, from the cache when nothing they depend on changed."""
    facts = {
        "tokenizer": canonical_tokenizer(tokenizer),
        "config": canonical_config(backbone.raw_config),
        "pooling": list(layout.poolings),
        "include_prompt": layout.include_prompt,
        "projection": [[dense.in_features, dense.out_features, dense.activation] for dense in layout.dense],
        "normalized": layout.normalized,
        "prompts": {name: text for name, text in sorted(layout.prompts.items()) if text},
        "default_prompt": layout.default_prompt,
    }
    paths = _model_files(source.directory)
    state = identity_cache.state_of(source.directory, paths, json.dumps([PREPROCESSING_VERSION, facts], sort_keys=True))
    record = identity_cache.load(source.directory, request.cache, state)
    if record is None:
        modules = {
            "transformer": canonical_tensors(stored_tensors(find_weights(layout.transformer)), backbone.prefixes)
        }
        for number, dense in enumerate(layout.dense):
            modules[f"dense.{number:02}"] = canonical_tensors(stored_tensors(find_weights(dense.path)))
        record = {
            "fingerprint": fingerprint(modules, facts),
            "files": [
                [path, (source.directory / path).stat().st_size, file_sha256(source.directory / path)] for path in paths
            ],
        }
        identity_cache.store(source.directory, request.cache, state, record)
    return str(record["fingerprint"]), tuple(ModelFile(*file) for file in record["files"])


def _model_files(directory: Path) -> list[str]:
    """Every file of the model, hidden ones and other formats of the same weights left out, in path order."""
    found = []
    for root, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in {"onnx", "openvino"}]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    kept = (".json", ".txt", ".model", ".safetensors", ".bin", ".tiktoken")
    return sorted(str(path.relative_to(directory)) for path in found if path.suffix in kept)
