"""What a llama_nemotron_vl directory says about itself: towers, tiles, prompts, limits. Reads JSON only.

The towers are config.json's. Prompts, tiles and lengths are processor_config.json's alone, as in the model's published
code (nemo-automodel 0.7, `LlamaNemotronVLProcessor`): what that file leaves out has the processor class's default, for
example six tiles, whatever config.json says. That code cannot load a directory without the file; here config.json is
asked in its place. `min_input_tiles` is vLLM's; the published class always begins at one. What decides about vectors
and has a default that is wrong for the published checkpoints, the pooling, is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.engine.model import Pooling
from embedding_runtime.images.tiling_rule import TileRule
from embedding_runtime.models.files import DirectoryError, read_object, require_object
from embedding_runtime.models.layout import Layout
from embedding_runtime.models.profiles import NVIDIA_POOLINGS
from embedding_runtime.models.safetensors_file import read_header
from embedding_runtime.models.weights import find_weights

MODEL_TYPE = "llama_nemotron_vl"
IMAGE_BEGINS, IMAGE_TOKEN, IMAGE_ENDS = "<img>", "<IMG_CONTEXT>", "</img>"
# What stands for images in prompts; the same strings in a user's text are text.
PLACEHOLDERS = ("<image>", IMAGE_BEGINS, IMAGE_TOKEN, IMAGE_ENDS)
# Sizes the model is trained to be cut to (the API reference's list); config.json names none.
_MATRYOSHKA = (128, 256, 384, 512, 768, 1024, 1536, 2048)
_TEMPLATES = (None, "", "bidirectional-llama-retriever")
_NORMALISATIONS = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True, slots=True)
class VisionLanguage:
    """A directory, understood. `vision` and `language` are the towers' configurations as stored; a tile becomes
    `tile_tokens` tokens, `downsample` patches to a side for each; `select_layer` is whose states of the vision tower
    count (-1: the last, normalised); `mean` and `deviation` are of colours between 0 and 1."""

    layout: Layout
    vision: Mapping[str, Any]
    language: Mapping[str, Any]
    image_token: int
    tile_tokens: int
    downsample: int
    select_layer: int
    tiles: TileRule
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


def is_vision_language(directory: Path) -> bool:
    """Whether config.json is of this model."""
    config = read_object(directory, "config.json")
    return config is not None and config.get("model_type") == MODEL_TYPE


def read_vision_language(directory: Path, pooling: Pooling | None) -> VisionLanguage:
    """Raises DirectoryError for what is missing, contradictory or cannot be computed here."""
    config = require_object(directory, "config.json")
    processor = read_object(directory, "processor_config.json")
    name = "config.json" if processor is None else "processor_config.json"
    said = config if processor is None else processor
    _refuse_quantised(directory, config)
    vision, language = _tower(config, "vision_config"), _tower(config, "llm_config")
    if vision.get("model_type") != "siglip_vision_model":
        raise DirectoryError(f"config.json: vision tower {vision.get('model_type')!r} is not siglip_vision_model")
    if language.get("architectures") != ["LlamaBidirectionalModel"]:
        raise DirectoryError(
            f"config.json: llm_config of {language.get('architectures')} is no LlamaBidirectionalModel"
        )

    def setting(key: str, default: Any, older: str | None = None) -> Any:
        found = next((said[each] for each in (key, older) if each and said.get(each) is not None), None)
        return default if found is None else found

    side = int(config.get("force_image_size") or vision.get("image_size") or 0)
    patches, downsample = _grid(side, vision, config)
    tile_tokens = (patches // downsample) ** 2
    if setting("num_image_token", tile_tokens) != tile_tokens:
        raise DirectoryError(f"{name}: num_image_token is not the {tile_tokens} that a tile becomes")
    if setting("image_size", side) != side:
        raise DirectoryError(f"{name}: image_size is not the {side} of config.json")
    if setting("template", None) not in _TEMPLATES:
        raise DirectoryError(f"{name}: the conversation template {setting('template', None)!r} is not known")
    norm = setting("norm_type", "siglip")
    if norm not in _NORMALISATIONS:
        raise DirectoryError(f"{name}: norm_type {norm!r} is not one of {', '.join(_NORMALISATIONS)}")
    mean, deviation = _NORMALISATIONS[norm]
    rule = TileRule(
        side=side,
        most=int(setting("max_input_tiles", 6, "max_dynamic_patch")),
        least=int(setting("min_input_tiles", 1, "min_dynamic_patch")),
        thumbnail=bool(setting("use_thumbnail", True)),
        dynamic=bool(setting("dynamic_image_size", True)),
    )
    if not 1 <= rule.least <= rule.most <= 64:
        raise DirectoryError(f"{name}: images cannot have {rule.least} to {rule.most} tiles")
    system = str(setting("system_message", ""))
    layout = Layout(
        directory,
        (pooling or _pooling(config, language),),
        normalized=True,
        query_tokens=_length(name, "q_max_length", setting("q_max_length", None)),
        passage_tokens=_length(name, "p_max_length", setting("p_max_length", None)),
        prompts={
            kind: system + (f"{prefix} " if (prefix := str(setting(f"{kind}_prefix", f"{kind}:"))) else "")
            for kind in ("query", "passage")
        },
        default_prompt="query",
        matryoshka=tuple(config.get("matryoshka_dimensions") or _MATRYOSHKA),
    )
    return VisionLanguage(
        layout=layout,
        vision={**vision, "image_size": side},
        language=language,
        image_token=int(_said(config, "img_context_token_id", 128258)),
        tile_tokens=tile_tokens,
        downsample=downsample,
        select_layer=int(_said(config, "select_layer", -1)),
        tiles=rule,
        mean=mean,
        deviation=deviation,
    )


def _said(config: Mapping[str, Any], key: str, default: float) -> Any:
    """A setting; one that is null is absent."""
    value = config.get(key)
    return default if value is None else value


def _tower(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    tower = config.get(key)
    if not isinstance(tower, dict):
        raise DirectoryError(f"config.json has no {key}")
    return dict(tower)


def _length(name: str, key: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DirectoryError(f"{name}: {key} must be a positive integer")
    return value


def _grid(side: int, vision: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, int]:
    """Patches to a side of a tile, and how many of them to a side become one token."""
    patch = int(vision.get("patch_size") or 16)
    ratio = float(_said(config, "downsample_ratio", 0.5))
    downsample = round(1 / ratio) if 0 < ratio <= 1 else 0
    if side < patch or downsample < 1 or abs(downsample * ratio - 1) > 1e-9 or side // patch % downsample:
        raise DirectoryError(
            f"config.json: tiles of {side} pixels, patches of {patch} and a downsample_ratio of {ratio} do not fit"
        )
    return side // patch, downsample


def _pooling(config: Mapping[str, Any], language: Mapping[str, Any]) -> Pooling:
    named = config.get("pooling") or language.get("pooling")
    if named not in NVIDIA_POOLINGS:
        raise DirectoryError(f"config.json: pooling {named!r} is not one of {', '.join(NVIDIA_POOLINGS)}")
    return NVIDIA_POOLINGS[str(named)]


def _refuse_quantised(directory: Path, config: Mapping[str, Any]) -> None:
    files = find_weights(directory)
    eight_bit = files.is_safetensors and any(
        entry.dtype.startswith("F8_") for path in files.paths for entry in read_header(path)
    )
    if eight_bit or "quantization_config" in config or (directory / "hf_quant_config.json").exists():
        raise DirectoryError(
            "is a quantised (FP8) checkpoint, whose scales only NVIDIA's own engines apply; "
            "use the bfloat16 one, the same name without -fp8"
        )
