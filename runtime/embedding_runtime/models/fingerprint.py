"""The fingerprint of a vector space: equal fingerprints mean comparable vectors.

It covers what decides where a text lands: the tensors (name, dtype, shape, bytes), the tokenizer, pooling, projections,
prompts, normalisation and the version of our own preprocessing. It does not depend on how the tensors are split into
files, on the file format, on the precision they are computed in, or on the names the model is served under.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedding_runtime.models.advance import Count, uncounted
from embedding_runtime.models.weights import StoredTensor

# Raise this when a change of ours moves vectors by more than rounding.
PREPROCESSING_VERSION = 1
# Bytes hashed at a time: enough to be fast, few enough to tell how far it is.
_CHUNK = 8 * 1024 * 1024

# Tensors that stock classes ignore: buffers that older versions stored, and heads that embedding does not use.
_IGNORED = re.compile(r"(^|\.)(position_ids|rotary_emb\.inv_freq)$|^(pooler|lm_head|cls|classifier)\.")
# Keys of tokenizer_config.json that change tokens.
_TOKENIZER_KEYS = {
    "add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars",
}  # fmt: skip
# Keys of config.json that say who wrote it, not what it computes.
_CONFIG_NOISE = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures", "auto_map",
    "_attn_implementation_autoset", "gradient_checkpointing",
}  # fmt: skip


def canonical_tensors(tensors: Iterable[StoredTensor], prefixes: Iterable[str] = ()) -> list[StoredTensor]:
    """In name order, without the prefix some exporters put before names, and without those no vector depends on."""
    kept = []
    for tensor in tensors:
        name = tensor.name
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        if not _IGNORED.search(name):
            kept.append(replace(tensor, name=name))
    return sorted(kept, key=lambda tensor: tensor.name)


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config.json without what cannot move a vector."""
    return {key: value for key, value in config.items() if key not in _CONFIG_NOISE}


def canonical_tokenizer(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json without padding and truncation, which are ours to choose, and what tokenizer_config.json changes.

    As stored, not as loaded: how a library writes a tokenizer may change with its version, the vectors do not.
    """
    kept = {key: value for key, value in tokenizer.items() if key not in {"padding", "truncation", "version"}}
    return {"tokenizer": kept, "config": {key: config[key] for key in sorted(_TOKENIZER_KEYS & config.keys())}}


def fingerprint(
    modules: Mapping[str, Iterable[StoredTensor]], facts: Mapping[str, Any], count: Count = uncounted
) -> str:
    """`sha256:<hex>` over the tensors of each module (in name order) and the JSON of everything else."""
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
        digest.update(len(text).to_bytes(8, "little") + text)

    feed({"preprocessing": PREPROCESSING_VERSION, **facts})
    for module in sorted(modules):
        feed({"module": module})
        for tensor in modules[module]:
            feed([tensor.name, tensor.dtype, list(tensor.shape)])
            data = memoryview(tensor.data)
            for begin in range(0, len(data), _CHUNK):
                part = data[begin : begin + _CHUNK]
                digest.update(part)
                count(len(part))
    return f"sha256:{digest.hexdigest()}"


def file_sha256(path: Path, count: Count = uncounted) -> str:
    """The hex SHA-256 of a file. `count` is told of its bytes as they are read."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            count(size)
    return digest.hexdigest()
