"""Naming a loaded model: its fingerprint and its files with their hashes, remembered between starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import ModelFile
from embedding_runtime.models import identity_cache
from embedding_runtime.models.advance import Progress, counter
from embedding_runtime.models.files import read_object, require_object
from embedding_runtime.models.fingerprint import (
    PREPROCESSING_VERSION,
    canonical_config,
    canonical_tensors,
    canonical_tokenizer,
    file_sha256,
    fingerprint,
)
from embedding_runtime.models.layout import Layout
from embedding_runtime.models.modules import Dense, LayerNorm, Step
from embedding_runtime.models.source import Source
from embedding_runtime.models.weights import StoredTensor, find_weights, stored_tensors

_KEPT = (".json", ".txt", ".model", ".safetensors", ".bin", ".tiktoken")
_OTHER_FORMATS = {"onnx", "openvino", "coreml"}


def identify(
    source: Source, cache: Path, layout: Layout, loaded_tokenizer: str, prefixes: tuple[str, ...], progress: Progress
) -> tuple[str, tuple[ModelFile, ...]]:
    """The fingerprint and the hashed files of a text model.

    `loaded_tokenizer` is JSON, used for directories without tokenizer.json; `prefixes` may stand before every name of a
    weight without meaning anything.
    """
    facts = {
        "tokenizer": tokenizer_facts(layout.transformer, loaded_tokenizer),
        "lowercase": layout.lowercase,
        "config": canonical_config(require_object(layout.transformer, "config.json")),
        "pooling": list(layout.poolings),
        "include_prompt": layout.include_prompt,
        "steps": step_facts(layout.steps),
        "normalized": layout.normalized,
        "prompts": prompt_facts(layout),
    }
    return name(source, cache, facts, lambda: _text_modules(layout, prefixes), progress)


def name(
    source: Source,
    cache: Path,
    facts: dict[str, Any],
    modules: Callable[[], Mapping[str, Sequence[StoredTensor]]],
    progress: Progress,
) -> tuple[str, tuple[ModelFile, ...]]:
    """The fingerprint over facts and tensors, and the hashed files: from the cache when nothing they depend on changed,
    `modules` is not called then."""
    directory = source.directory
    step = f"computing the fingerprint of {source.name}"
    progress(step)
    paths = model_files(directory)
    state = identity_cache.state_of(directory, paths, json.dumps([PREPROCESSING_VERSION, facts], sort_keys=True))
    record = identity_cache.load(directory, cache, state)
    if record is None:
        tensors = modules()
        sizes = [(directory / path).stat().st_size for path in paths]
        hashed = sum(len(tensor.data) for members in tensors.values() for tensor in members)
        count = counter(progress, step, hashed + sum(sizes))
        record = {
            "fingerprint": fingerprint(tensors, facts, count),
            "files": [
                [path, size, file_sha256(directory / path, count)] for path, size in zip(paths, sizes, strict=True)
            ],
        }
        identity_cache.store(directory, cache, state, record)
    return str(record["fingerprint"]), tuple(ModelFile(*file) for file in record["files"])


def tokenizer_facts(directory: Path, loaded_tokenizer: str) -> dict[str, Any]:
    """What of a tokenizer decides about tokens."""
    return canonical_tokenizer(
        read_object(directory, "tokenizer.json") or json.loads(loaded_tokenizer),
        read_object(directory, "tokenizer_config.json") or {},
    )


def prompt_facts(layout: Layout) -> dict[str, Any]:
    """What is put before inputs."""
    return {"query": layout.query_prompt, "passage": layout.passage_prompt, "default": layout.default_prompt}


def model_files(directory: Path) -> list[str]:
    """Every file of the model, hidden ones and other formats of the same weights left out, in path order."""
    found = []
    for root, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _OTHER_FORMATS]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(str(path.relative_to(directory)) for path in found if path.suffix in _KEPT)


def _text_modules(layout: Layout, prefixes: tuple[str, ...]) -> dict[str, list[StoredTensor]]:
    transformer = canonical_tensors(stored_tensors(find_weights(layout.transformer)), prefixes)
    return {"transformer": transformer} | step_tensors(layout.steps)


def step_tensors(steps: Sequence[Step]) -> dict[str, list[StoredTensor]]:
    """The tensors of the modules that have some."""
    return {
        f"step.{number:02}": canonical_tensors(stored_tensors(find_weights(step.path)))
        for number, step in enumerate(steps)
        if isinstance(step, Dense | LayerNorm)
    }


def step_facts(steps: Sequence[Step]) -> list[list[object]]:
    """What of the modules decides about vectors, beside their tensors."""
    return [_describe(step) for step in steps]


def _describe(step: Step) -> list[object]:
    match step:
        case Dense():
            # As before there were residuals, so that the fingerprints of then stay.
            residual = ["residual"] if step.residual else []
            return ["Dense", step.in_features, step.out_features, step.activation, *residual]
        case LayerNorm():
            return ["LayerNorm", step.dimension]
        case _:
            return ["Normalize"]
