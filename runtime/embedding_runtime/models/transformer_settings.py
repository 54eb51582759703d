"""The Transformer module of a sentence-transformers directory: its settings, honoured or refused by name.

The keys are those that sentence-transformers 2 to 6 read (base/modules/transformer.py of 6.2). One that is not known
here is refused too when its value says something: vectors that are plausible and wrong are worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.models.files import DirectoryError, read_object

_FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Keys that decide how fast or in which precision, or what is said below; and what a caller gives when loading.
_READ = {
    "transformer_task", "modality_config", "module_output_name", "processing_kwargs", "query_length", "document_length",
    "max_seq_length", "do_lower_case", "model_args", "model_kwargs", "tokenizer_args", "processor_kwargs",
    "config_args", "config_kwargs",
}  # fmt: skip
_HARMLESS = {"unpad_inputs", "backend", "cache_dir"}
# Of the arguments for loading: those that change no vector.
_HARMLESS_ARGUMENTS = {
    "attn_implementation", "torch_dtype", "dtype", "device_map", "low_cpu_mem_usage", "use_safetensors", "use_cache",
    "add_pooling_layer", "trust_remote_code", "local_files_only", "revision", "code_revision", "token", "cache_dir",
    "use_fast", "padding_side", "clean_up_tokenization_spaces", "unpad_inputs", "use_memory_efficient_attention",
}  # fmt: skip
# Of the arguments for tokenising: padding changes no vector, how long texts may be is decided per request.
_HARMLESS_PROCESSING = {
    "padding", "padding_side", "pad_to_multiple_of", "truncation", "return_tensors", "return_attention_mask",
    "return_token_type_ids", "return_length", "verbose", "logits_to_keep",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """What the module says about texts. Lengths are tokens; those of queries and passages are None where untold."""

    max_tokens: int | None = None
    query_tokens: int | None = None
    passage_tokens: int | None = None
    lowercase: bool = False


def read_transformer(folder: Path) -> TransformerSettings:
    """The settings of the module, under any of the names its file has had.

    Raises DirectoryError, with the file and the key, for what changes vectors in a way that is not served.
    """
    for family in _FAMILIES:
        name = f"sentence_{family}_config.json"
        settings = read_object(folder, name)
        # As sentence-transformers does: an empty file is as good as none.
        if settings:
            return _parse(folder, name, settings)
    return TransformerSettings()


def read_text_tower(folder: Path) -> TransformerSettings:
    """The settings for texts of a module with several towers, whose outputs its own reader looks after.

    Raises DirectoryError as `read_transformer` does.
    """
    name = "sentence_bert_config.json"
    settings = read_object(folder, name)
    return _parse(folder, name, settings, has_towers=True) if settings else TransformerSettings()


def _parse(folder: Path, name: str, settings: Mapping[str, Any], *, has_towers: bool = False) -> TransformerSettings:
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise DirectoryError(f"{name}: transformer_task {task!r} is not supported; feature-extraction is")
    for key in settings.keys() - _READ - _HARMLESS:
        _refuse_unless_empty(name, key, settings[key])
    if not has_towers:
        _check_output(name, settings)
    processing = _processing(name, settings)
    loading = _loading(folder, name, settings)
    fixed = _length(name, "processing_kwargs.text.max_length", processing)
    return TransformerSettings(
        max_tokens=fixed or loading or _length(name, "max_seq_length", settings.get("max_seq_length")),
        query_tokens=fixed or _length(name, "query_length", settings.get("query_length")),
        passage_tokens=fixed or _length(name, "document_length", settings.get("document_length")),
        lowercase=bool(settings.get("do_lower_case", False)),
    )


def _check_output(name: str, settings: Mapping[str, Any]) -> None:
    """The text must go straight through the model, and its last hidden states to the pooling."""
    modalities = _object(name, "modality_config", settings.get("modality_config"))
    if not modalities:
        return
    if "message" in modalities:
        raise DirectoryError(
            f"{name}: modality_config.message is not supported: texts would have to go through a chat template"
        )
    text = _object(name, "modality_config.text", modalities.get("text"))
    method, output = text.get("method"), text.get("method_output_name")
    if method != "forward":
        raise DirectoryError(f"{name}: modality_config.text.method {method!r} is not supported; forward is")
    if output not in ("last_hidden_state", ["last_hidden_state"]):
        raise DirectoryError(
            f"{name}: modality_config.text.method_output_name {output!r} is not supported; last_hidden_state is"
        )
    module = settings.get("module_output_name")
    if module != "token_embeddings":
        raise DirectoryError(f"{name}: module_output_name {module!r} is not supported; token_embeddings is")


def _processing(name: str, settings: Mapping[str, Any]) -> Any:
    """The length that processing_kwargs fix, if they do."""
    groups = _object(name, "processing_kwargs", settings.get("processing_kwargs"))
    length = None
    # Those of other modalities say nothing about texts.
    for group in ("common", "text"):
        arguments = _object(name, f"processing_kwargs.{group}", groups.get(group))
        for key, value in arguments.items():
            if key == "max_length":
                length = value
            elif key not in _HARMLESS_PROCESSING and not (key == "add_special_tokens" and value is True):
                raise DirectoryError(f"{name}: processing_kwargs.{group}.{key} {value!r} is not supported")
    return length


def _loading(folder: Path, name: str, settings: Mapping[str, Any]) -> int | None:
    """The length that the tokenizer's arguments give it, if they do; all other arguments must change nothing."""
    length = None
    for old, new in (("model_args", "model_kwargs"), ("tokenizer_args", "processor_kwargs")):
        # As sentence-transformers does: the old name wins.
        group = old if old in settings else new
        for key, value in _object(name, group, settings.get(group)).items():
            if key == "model_max_length" and old == "tokenizer_args":
                length = _length(name, f"{group}.{key}", value)
            elif key not in _HARMLESS_ARGUMENTS:
                _refuse_unless_empty(name, f"{group}.{key}", value)
    group = "config_args" if "config_args" in settings else "config_kwargs"
    stored = read_object(folder, "config.json") or {}
    for key, value in _object(name, group, settings.get(group)).items():
        if key not in _HARMLESS_ARGUMENTS and (key not in stored or stored[key] != value):
            raise DirectoryError(
                f"{name}: {group}.{key} {value!r} is not supported; if it is right, write it into config.json"
            )
    return length


def _refuse_unless_empty(name: str, key: str, value: Any) -> None:
    if value not in (None, False, {}, []):
        raise DirectoryError(f"{name}: {key} {value!r} is not supported")


def _object(name: str, key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DirectoryError(f"{name}: {key} must be an object")
    return value


def _length(name: str, key: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DirectoryError(f"{name}: {key} must be a positive integer")
    return value
