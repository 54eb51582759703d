"""The modules of a sentence-transformers directory that follow the transformer: their settings, read from JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Pooling
from embedding_runtime.models.files import DirectoryError, read_object, require_object


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer; `path` holds its weights, `activation` is a class of torch.nn. With `residual` its input is added
    to what the activation gives, through a linear layer without bias when the sizes differ."""

    path: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """A layer normalisation over the whole vector; `path` holds its weights."""

    path: Path
    dimension: int


@dataclass(frozen=True, slots=True)
class Normalise:
    """Scale to unit length, when further modules follow (at the end it is Layout.normalized)."""


Step = Dense | LayerNorm | Normalise

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


def read_pooling(directory: Path) -> tuple[tuple[Pooling, ...], bool]:
    """Modes in concatenation order, and whether prompt tokens are pooled too. Knows the old and the new format."""
    name = f"{directory.name}/config.json"
    config = require_object(directory.parent, name)
    mode = config.get("pooling_mode")
    if mode is not None:
        names = [mode] if isinstance(mode, str) else list(mode)
    else:
        known = {flag: active for flag, active in config.items() if flag.startswith("pooling_mode_") and active}
        names = [flag if flag not in _POOLING_FLAGS else _spelling(_POOLING_FLAGS[flag]) for flag in known]
    unknown = [each for each in names if each not in _POOLING_NAMES]
    if unknown:
        raise DirectoryError(f"{name}: pooling mode {unknown[0]!r} is not supported")
    poolings = tuple(_POOLING_NAMES[each] for each in names)
    if mode is None:
        # The old flags have an order of their own; a list is concatenated as it is written.
        poolings = tuple(pooling for pooling in _POOLING_FLAGS.values() if pooling in poolings)
    return poolings or (Pooling.MEAN,), bool(config.get("include_prompt", True))


def _spelling(pooling: Pooling) -> str:
    return next(name for name, each in _POOLING_NAMES.items() if each is pooling)


def read_dense(directory: Path) -> Dense:
    """A Dense module. Its default activation is Tanh; only torch.nn's own activations are accepted."""
    name = f"{directory.name}/config.json"
    config = require_object(directory.parent, name)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if not activation.startswith("torch.nn."):
        raise DirectoryError(f"{name}: activation {activation!r} is not one of torch.nn")
    _require_pooled(name, "Dense", config)
    return Dense(
        directory,
        _integer(config, "in_features", name),
        _integer(config, "out_features", name),
        bool(config.get("bias", True)),
        activation.rsplit(".", 1)[-1],
        bool(config.get("use_residual", False)),
    )


def read_layer_norm(directory: Path) -> LayerNorm:
    """A LayerNorm module."""
    name = f"{directory.name}/config.json"
    return LayerNorm(directory, _integer(require_object(directory.parent, name), "dimension", name))


def check_normalize(directory: Path) -> None:
    """Raises DirectoryError unless a Normalize module maps the pooled vector to itself; it may have no settings."""
    config = read_object(directory, "config.json") if directory.is_dir() else None
    _require_pooled(f"{directory.name}/config.json", "Normalize", config or {})


def _require_pooled(name: str, kind: str, config: dict[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        feature = config.get(key) or "sentence_embedding"
        if feature != "sentence_embedding":
            raise DirectoryError(
                f"{name}: {key} {feature!r} is not supported; a {kind} module must map the pooled sentence_embedding"
            )


def _integer(config: dict[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DirectoryError(f"{name}: {key} must be a positive integer")
    return value
