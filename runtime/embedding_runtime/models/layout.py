"""What a model directory says about itself: modules, pooling, prompts, limits. Reads JSON only, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from embedding_runtime.models.files import DirectoryError, inside, read_json, read_object, require_object


class Pooling(StrEnum):
    """How token vectors become one vector. The names are those of the EmbeddingService API."""

    MEAN = "Mean"
    WEIGHTED_MEAN = "WeightedMean"
    MEAN_SQRT_LENGTH = "MeanSqrtLength"
    MAX = "Max"
    CLS = "Cls"
    LAST_TOKEN = "LastToken"  # noqa: S105


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear projection behind the pooling; `path` holds its weights, `activation` is a class of torch.nn."""

    path: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A sentence-transformers directory, understood. `transformer` is where the backbone and tokenizer lie."""

    transformer: Path
    poolings: tuple[Pooling, ...]
    include_prompt: bool
    dense: tuple[DenseLayer, ...]
    normalized: bool
    max_tokens: int | None
    lowercase: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    matryoshka: tuple[int, ...] = ()


# sentence-transformers concatenates several modes in this order.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LENGTH,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST_TOKEN,
}
_POOLING_NAMES = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LENGTH,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST_TOKEN,
}
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Every spelling of a module's class, old and new, ends in one of these names inside one of these packages.
_MODULE_PACKAGES = ("sentence_transformers.models.", "sentence_transformers.base.modules.",
                    "sentence_transformers.sentence_transformer.modules.")  # fmt: skip
_MODULE_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")


def read_layout(directory: Path) -> Layout | None:
    """The layout of a sentence-transformers directory; None when it has no modules.json.

    Raises DirectoryError for a module or setting that cannot be served as it is meant.
    """
    modules = read_json(directory, "modules.json")
    if modules is None:
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules) or not modules:
        raise DirectoryError("modules.json must hold a list of modules")
    meta = read_object(directory, "config_sentence_transformers.json") or {}
    if meta.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise DirectoryError(f"a {meta['model_type']} is no embedding model that gives one vector per text")
    parsed = [_parse_module(directory, module) for module in modules]
    kinds = [kind for kind, _ in parsed]
    if kinds[0] != "Transformer" or kinds.count("Transformer") != 1:
        raise DirectoryError(f"modules.json must start with one Transformer; it lists {', '.join(kinds)}")
    transformer = parsed[0][1]
    pooling = next((path for kind, path in parsed if kind == "Pooling"), None)
    if pooling is None:
        raise DirectoryError("modules.json has no Pooling module")
    poolings, include_prompt = read_pooling(pooling)
    bert = _transformer_config(transformer)
    truncate = meta.get("truncate_dim")
    return Layout(
        transformer=transformer,
        poolings=poolings,
        include_prompt=include_prompt,
        dense=tuple(read_dense(path) for kind, path in parsed if kind == "Dense"),
        normalized="Normalize" in kinds,
        max_tokens=bert.get("max_seq_length"),
        lowercase=bool(bert.get("do_lower_case", False)),
        prompts={str(name): str(text) for name, text in (meta.get("prompts") or {}).items() if text is not None},
        default_prompt=meta.get("default_prompt_name"),
        matryoshka=(int(truncate),) if truncate else (),
    )


def _parse_module(directory: Path, module: Mapping[str, Any]) -> tuple[str, Path]:
    kind = str(module.get("type", ""))
    name = kind.rsplit(".", 1)[-1]
    if not kind.startswith(_MODULE_PACKAGES) or name not in _MODULE_KINDS:
        raise DirectoryError(f"module {kind!r} of modules.json is not supported (remote code is never executed)")
    return name, inside(directory, str(module.get("path", "")))


def read_pooling(directory: Path) -> tuple[tuple[Pooling, ...], bool]:
    """Modes in concatenation order, and whether prompt tokens are pooled too. Knows the old and the new format."""
    config = require_object(directory.parent, f"{directory.name}/config.json")
    mode = config.get("pooling_mode")
    if mode is not None:
        names = [mode] if isinstance(mode, str) else list(mode)
        unknown = [name for name in names if name not in _POOLING_NAMES]
        if unknown:
            raise DirectoryError(f"{directory.name}/config.json: pooling mode {unknown[0]!r} is not supported")
        poolings = tuple(_POOLING_NAMES[name] for name in names)
    else:
        poolings = tuple(pooling for flag, pooling in _POOLING_FLAGS.items() if config.get(flag))
    return poolings or (Pooling.MEAN,), bool(config.get("include_prompt", True))


def read_dense(directory: Path) -> DenseLayer:
    """One Dense module. Its default activation is Tanh; only torch.nn's own activations are accepted."""
    name = f"{directory.name}/config.json"
    config = require_object(directory.parent, name)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if not activation.startswith("torch.nn."):
        raise DirectoryError(f"{name}: activation {activation!r} is not one of torch.nn")
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding" or config.get("use_residual"):
        raise DirectoryError(f"{name}: this form of Dense module is not supported")
    try:
        features = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise DirectoryError(f"{name}: in_features and out_features must be integers") from error
    return DenseLayer(directory, *features, bool(config.get("bias", True)), activation.rsplit(".", 1)[-1])


def _transformer_config(directory: Path) -> dict[str, Any]:
    for name in _TRANSFORMER_CONFIGS:
        config = read_object(directory, name)
        if config is not None:
            return config
    return {}
