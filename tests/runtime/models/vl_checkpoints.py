"""Tiny seeded checkpoints of llama_nemotron_vl: the published names, files and tokenizer layout, weights of kilobytes.

Weights come from numpy's PCG64, one stream for each name, so that they are the same on every machine and the values
that NVIDIA's own class gave for them (oracle/) stay true.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, SiglipVisionConfig, SiglipVisionModel

from tests.runtime.models.checkpoints import CORPUS, write_json

# Llama 3's, as its tokenizer.json splits text before merging.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# Nothing equals a class's default, and no two sizes are alike, so that a number taken from the wrong place shows.
VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 56, "image_size": 32, "patch_size": 4, "num_channels": 3, "layer_norm_eps": 3e-6,
    "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    "architectures": ["LlamaBidirectionalModel"], "model_type": "llama_bidirec", "pooling": "avg", "temperature": 0.02,
    "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "intermediate_size": 72, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64},
    "attention_bias": False, "tie_word_embeddings": True, "use_cache": False, "torch_dtype": "bfloat16",
}  # fmt: skip
# Real geometry (512 pixels, patches of 16, 2048 numbers), next to no depth.
PUBLISHED_VISION = VISION | {"image_size": 512, "patch_size": 16, "num_hidden_layers": 1, "hidden_size": 12}
PUBLISHED_LANGUAGE = LANGUAGE | {"hidden_size": 2048, "num_hidden_layers": 1, "intermediate_size": 16, "head_dim": 8}


def tokenizer(*, atomic: bool = True, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Llama 3's layout: byte-level BPE, special tokens behind the vocabulary, a post-processor that puts one in front.

    With `atomic`, `<img>` and `</img>` are tokens as `<IMG_CONTEXT>` is; otherwise they are plain text.
    """
    model = Tokenizer(BPE(ignore_merges=True))
    model.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    model.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, special_tokens=[], initial_alphabet=alphabet, show_progress=False)
    )
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>"]
    specials += ["<img>", "</img>"] if atomic else []
    specials += ["<IMG_CONTEXT>", *extra]
    model.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    first = model.token_to_id("<|begin_of_text|>")
    model.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", [("<|begin_of_text|>", first)]
        ),
    ])  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", pad_token="<|eot_id|>",
        padding_side="left", model_max_length=4096,
    )  # fmt: skip


def build(
    directory: Path,
    *,
    vision: dict[str, Any] | None = None,
    language: dict[str, Any] | None = None,
    nested: bool = True,
    atomic: bool = True,
    extra: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
    config: dict[str, Any] | None = None,
    processor: dict[str, Any] | None = None,
    spread: float = 0.3,
) -> Path:
    """Write a directory as published; `nested` chooses between the two forms of the vision tower's names, `spread` is
    the standard deviation of weights."""
    tokens = tokenizer(atomic=atomic, extra=extra)
    vision = vision or VISION
    language = (language or LANGUAGE) | {"vocab_size": len(tokens)}
    stock_vision = SiglipVisionModel(SiglipVisionConfig(**{k: v for k, v in vision.items() if k != "model_type"}))
    noise = {"architectures", "model_type", "pooling", "temperature", "torch_dtype"}
    stock_language = LlamaModel(LlamaConfig(**{k: v for k, v in language.items() if k not in noise}))
    inner = 4 * int(vision["hidden_size"])
    size = int(language["hidden_size"])
    projector = torch.nn.Sequential(
        torch.nn.LayerNorm(inner), torch.nn.Linear(inner, size), torch.nn.GELU(), torch.nn.Linear(size, size)
    )
    towers = {
        "vision_model.vision_model." if nested else "vision_model.": stock_vision,
        "language_model.": stock_language,
        "mlp1.": projector,
    }
    weights = {
        prefix + name: _values(
            prefix.replace("vision_model.vision_model.", "vision_model.") + name, parameter.shape, spread
        ).to(dtype)
        for prefix, module in towers.items()
        for name, parameter in module.named_parameters()
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    tokens.save_pretrained(directory)
    image_tokens = (int(vision["image_size"]) // int(vision["patch_size"]) // 2) ** 2
    write_json(directory / "config.json", {
        "architectures": ["LlamaNemotronVLModel"], "model_type": "llama_nemotron_vl",
        "auto_map": {"AutoConfig": "configuration.LlamaNemotronVLConfig", "AutoModel": "modeling.LlamaNemotronVLModel"},
        "vision_config": vision, "llm_config": language, "downsample_ratio": 0.5, "select_layer": -1,
        "force_image_size": vision["image_size"], "ps_version": "v2", "dynamic_image_size": True, "use_thumbnail": True,
        "max_input_tiles": 2, "pooling": "avg", "template": "bidirectional-llama-retriever", "torch_dtype": "bfloat16",
        "img_context_token_id": tokens.convert_tokens_to_ids("<IMG_CONTEXT>"), "q_max_length": 512,
        "p_max_length": 4096,
    } | (config or {}))  # fmt: skip
    write_json(directory / "processor_config.json", {
        "processor_class": "LlamaNemotronVLProcessor", "max_input_tiles": 6, "num_image_token": image_tokens,
        "image_size": vision["image_size"], "dynamic_image_size": True, "use_thumbnail": True,
        "query_prefix": "query:", "passage_prefix": "passage:", "p_max_length": 4096, "q_max_length": 512,
        "norm_type": "siglip", "system_message": "", "template": "bidirectional-llama-retriever",
    } | (processor or {}))  # fmt: skip
    return directory


def _values(name: str, shape: torch.Size, spread: float) -> torch.Tensor:
    """Large enough that mistakes show, small enough that nothing saturates; scales of norms stay near one."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.standard_normal(tuple(shape)) * (spread if len(shape) > 1 else 0.1)
    if ("norm" in name and name.endswith("weight")) or name == "mlp1.0.weight":
        values += 1
    return torch.from_numpy(values.astype(np.float32))


def digest(directory: Path) -> str:
    """Changes whenever a recorded value may: over the weights and the tokenizer."""
    whole = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        whole.update((directory / name).read_bytes())
    return whole.hexdigest()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image with edges, gradients and noise: what a resize gets wrong, it gets wrong here."""
    generator = np.random.default_rng(1000 + seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (3 + seed)) * 90 + 120, np.cos(y / 5) * 80 + 100, (x * 7 + y * 3) % 256], axis=2)
    noise = generator.integers(-30, 30, (height, width, 3))
    stripes = np.where((x // 9 + y // 13) % 2, 40, -40)[..., None]
    return Image.fromarray(np.clip(waves + noise + stripes, 0, 255).astype(np.uint8))


def file_of(kind: str, mode: str, options: dict[str, Any]) -> bytes:
    """A file of one format, in one of Pillow's modes, with values that go beyond eight bits where the mode does."""
    image = picture(90, 60, seed=4)
    if mode in ("I;16", "I", "F"):
        values = np.asarray(image.convert("L")).astype(np.int64) * 257 - 9000
        dtypes = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray((values.clip(0) if mode == "I;16" else values).astype(dtypes[mode]))
    elif mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
