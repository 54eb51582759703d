"""What a model directory says about itself: modules, pooling, prompts, limits. Reads JSON only, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Pooling
from embedding_runtime.models.files import DirectoryError, inside, read_json, read_object
from embedding_runtime.models.modules import (
    Normalise,
    Step,
    check_normalize,
    read_dense,
    read_layer_norm,
    read_pooling,
)
from embedding_runtime.models.transformer_settings import read_transformer

# The order in which sentence-transformers looks for the prompt of a document.
PASSAGE_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class Layout:
    """A model directory, understood. `transformer` is where the backbone and tokenizer lie, `steps` what follows the
    pooling, `prompts` are by name and `default_prompt` names the one used when a request does not say. Lengths are
    tokens; `max_tokens` is that of inputs whose kind has none of its own."""

    transformer: Path
    poolings: tuple[Pooling, ...]
    normalized: bool
    include_prompt: bool = True
    steps: tuple[Step, ...] = ()
    max_tokens: int | None = None
    query_tokens: int | None = None
    passage_tokens: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    matryoshka: tuple[int, ...] = ()

    @property
    def query_prompt(self) -> str:
        return self.prompts.get("query", "")

    @property
    def passage_prompt(self) -> str:
        return next((self.prompts[name] for name in PASSAGE_PROMPTS if name in self.prompts), "")


# Every spelling of a module's class, old and new, ends in one of these names inside one of these packages.
_MODULE_PACKAGES = (
    "sentence_transformers.models.",
    "sentence_transformers.base.modules.",
    "sentence_transformers.sentence_transformer.modules.",
)
_MODULE_KINDS = ("Transformer", "CLIPModel", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")


def read_layout(directory: Path) -> Layout | None:
    """The layout of a sentence-transformers directory; None when it has no modules.json.

    Raises DirectoryError for a module or setting that cannot be served as it is meant.
    """
    parsed = read_modules(directory)
    if parsed is None:
        return None
    meta = read_meta(directory)
    kinds = [kind for kind, _ in parsed]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") + kinds.count("Pooling") != 2:
        raise DirectoryError(f"modules.json must list a Transformer, then a Pooling; it lists {', '.join(kinds)}")
    transformer, pooling = parsed[0][1], parsed[1][1]
    following = parsed[2:]
    normalized = bool(following) and following[-1][0] == "Normalize"
    poolings, include_prompt = read_pooling(pooling)
    settings = read_transformer(transformer)
    for kind, path in following:
        if kind == "Normalize":
            check_normalize(path)
    return Layout(
        transformer=transformer,
        poolings=poolings,
        include_prompt=include_prompt,
        steps=tuple(read_step(kind, path) for kind, path in (following[:-1] if normalized else following)),
        normalized=normalized,
        max_tokens=settings.max_tokens,
        query_tokens=settings.query_tokens,
        passage_tokens=settings.passage_tokens,
        lowercase=settings.lowercase,
        prompts=read_prompts(meta),
        default_prompt=meta.get("default_prompt_name"),
        matryoshka=read_sizes(meta),
    )


def read_modules(directory: Path) -> list[tuple[str, Path]] | None:
    """The kinds and folders of modules.json, in order; None without the file.

    Raises DirectoryError for a module that is not known.
    """
    modules = read_json(directory, "modules.json")
    if modules is None:
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules) or not modules:
        raise DirectoryError("modules.json must hold a list of modules")
    # Dropout does nothing when serving.
    return [pair for pair in (_parse(directory, module) for module in modules) if pair[0] != "Dropout"]


def weight_folders(directory: Path) -> list[Path]:
    """The folders that must hold weights: the directory itself, or those of its modules that have some.

    Raises DirectoryError for a module that is not known.
    """
    modules = read_modules(directory)
    if modules is None:
        return [directory]
    return [path for kind, path in modules if kind not in ("Pooling", "Normalize")]


def read_meta(directory: Path) -> dict[str, Any]:
    """config_sentence_transformers.json, of a model that gives one vector for an input."""
    meta = read_object(directory, "config_sentence_transformers.json") or {}
    if meta.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise DirectoryError(f"a {meta['model_type']} is no embedding model that gives one vector per text")
    return meta


def read_prompts(meta: Mapping[str, Any]) -> dict[str, str]:
    """The prompts of config_sentence_transformers.json by name."""
    prompts = meta.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise DirectoryError("config_sentence_transformers.json: prompts must be an object")
    return {str(name): str(text) for name, text in prompts.items() if text is not None}


def _parse(directory: Path, module: Mapping[str, Any]) -> tuple[str, Path]:
    kind = str(module.get("type", ""))
    name = kind.rsplit(".", 1)[-1]
    if not kind.startswith(_MODULE_PACKAGES) or name not in _MODULE_KINDS:
        raise DirectoryError(f"module {kind!r} of modules.json is not supported (remote code is never executed)")
    return name, inside(directory, str(module.get("path", "")))


def read_step(kind: str, path: Path) -> Step:
    """The settings of a module that follows the pooling."""
    match kind:
        case "Dense":
            return read_dense(path)
        case "LayerNorm":
            return read_layer_norm(path)
        case _:
            return Normalise()


def read_sizes(meta: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes the vectors may be cut to, as far as the directory says."""
    sizes = list(meta.get("matryoshka_dimensions") or [])
    truncate = meta.get("truncate_dim")
    return tuple(int(size) for size in {*sizes, *([truncate] if truncate else [])})
