"""What a CLIP or SigLIP directory says about itself: one tower for texts and one for images, into the same space.

Understood are directories of sentence-transformers (a Transformer module with a `modality_config`, or the CLIPModel
module of versions before 5.4), and plain Hugging Face ones, whose vectors are normalised as their own similarity does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.models.files import DirectoryError, read_json, read_object, require_object
from embedding_runtime.models.layout import Layout, read_meta, read_modules, read_prompts, read_sizes, read_step
from embedding_runtime.models.transformer_settings import read_text_tower

FAMILIES = ("clip", "siglip")
_METHODS = {"text": "get_text_features", "image": "get_image_features"}


@dataclass(frozen=True, slots=True)
class DualLayout:
    """A directory, understood. `layout` has no pooling: each tower gives one vector by itself."""

    family: str
    layout: Layout
    config: Mapping[str, Any]
    processing: Mapping[str, Any]


def is_dual(directory: Path) -> bool:
    """Whether the directory's model has a tower for texts and one for images."""
    config = read_object(_first_folder(directory), "config.json")
    return config is not None and config.get("model_type") in FAMILIES


def read_dual(directory: Path) -> DualLayout:
    """Raises DirectoryError for a module or setting that cannot be served as it is meant."""
    folder = _first_folder(directory)
    config = require_object(folder, "config.json")
    processing = read_object(folder, "preprocessor_config.json")
    if processing is None:
        processing = (read_object(folder, "processor_config.json") or {}).get("image_processor")
    if not isinstance(processing, dict):
        raise DirectoryError("preprocessor_config.json is missing")
    return DualLayout(str(config["model_type"]), _read_layout(directory, folder), config, processing)


def _read_layout(directory: Path, folder: Path) -> Layout:
    modules = read_modules(directory)
    if modules is None:
        return Layout(directory, (), normalized=True)
    kinds = [kind for kind, _ in modules]
    if any(kind in ("Transformer", "CLIPModel", "Pooling") for kind in kinds[1:]):
        raise DirectoryError(f"modules.json must list a model of two towers first; it lists {', '.join(kinds)}")
    _check_methods(folder)
    texts = read_text_tower(folder)
    meta = read_meta(directory)
    normalized = kinds[-1] == "Normalize"
    return Layout(
        folder,
        (),
        normalized=normalized,
        steps=tuple(read_step(kind, path) for kind, path in (modules[1:-1] if normalized else modules[1:])),
        max_tokens=texts.max_tokens,
        query_tokens=texts.query_tokens,
        passage_tokens=texts.passage_tokens,
        lowercase=texts.lowercase,
        prompts=read_prompts(meta),
        default_prompt=meta.get("default_prompt_name"),
        matryoshka=read_sizes(meta),
    )


def _check_methods(folder: Path) -> None:
    name = "sentence_bert_config.json"
    settings = read_object(folder, name) or {}
    modalities = settings.get("modality_config") or {}
    for modality, method in _METHODS.items():
        named = modalities.get(modality, {}).get("method", method)
        if named != method:
            raise DirectoryError(f"{name}: {modality} by {named!r} is not supported")
    # What would override the image processor's own file.
    for group in ("image", "images"):
        if arguments := (settings.get("processing_kwargs") or {}).get(group):
            raise DirectoryError(
                f"{name}: processing_kwargs.{group} {arguments!r} is not supported; if it is right, write it into "
                "preprocessor_config.json"
            )


def _first_folder(directory: Path) -> Path:
    """Where the towers are: the first module's folder, or the directory itself."""
    modules = read_json(directory, "modules.json")
    if not isinstance(modules, list) or not modules or not isinstance(modules[0], dict):
        return directory
    path = Path(str(modules[0].get("path", "")))
    return directory if path.is_absolute() or ".." in path.parts else directory / path
