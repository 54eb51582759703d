"""Tiny seeded checkpoints in the layouts users have: real configurations, weights and tokenizers of a few kilobytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Embeddings of sentences are vectors; passages and queries meet in one space.",
    "query: what is a vector? passage: a vector is a list of numbers, with Ünïcödé.",
    "0 1 2 3 4 5 6 7 8 9 (parentheses) [brackets] {braces} <tags> & symbols!",
]
TEXTS = (
    "fox",
    "The quick brown fox jumps over the lazy dog.",
    "a vector is a list of numbers " * 3,
    "Ünïcödé & symbols",
    "The quick brown fox jumps over the lazy dog.",
)
HIDDEN = 32
LIMIT = 64


def wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Real directories come with these baked in; they must not reach the vectors.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=LIMIT,
    )  # fmt: skip


def byte_level(end: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    template = "$A <|end|>" if end else "<|begin|> $A"
    tokenizer.post_processor = processors.TemplateProcessing(
        template, special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>",
        model_max_length=LIMIT, padding_side="left",
    )  # fmt: skip


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>", mask_token="<mask>", model_max_length=LIMIT,
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One architecture: its configuration class, what is special about it, and its tokenizer."""

    name: str
    config: str
    tokenizer: Callable[[], PreTrainedTokenizerFast] = wordpiece
    extra: tuple[tuple[str, Any], ...] = ()
    pooling: str = "mean"


_SMALL = {
    "vocab_size": 400,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
_GROUPED = (("num_key_value_heads", 2), ("head_dim", 8))
FAMILIES = (
    Family("bert", "BertConfig"),
    Family("roberta", "RobertaConfig", unigram, (("pad_token_id", 1),)),
    Family("xlm-roberta", "XLMRobertaConfig", unigram, (("pad_token_id", 1),), "cls"),
    Family("camembert", "CamembertConfig", unigram, (("pad_token_id", 1),)),
    Family("distilbert", "DistilBertConfig", wordpiece, (
        ("dim", HIDDEN), ("n_layers", 2), ("n_heads", 4), ("hidden_dim", 48))),
    Family("electra", "ElectraConfig", wordpiece, (("embedding_size", 16),)),
    Family("albert", "AlbertConfig", wordpiece, (("embedding_size", 16),)),
    Family("ernie", "ErnieConfig"),
    Family("mpnet", "MPNetConfig", unigram, (("pad_token_id", 1),)),
    Family("deberta-v2", "DebertaV2Config", wordpiece, (
        ("relative_attention", True), ("pos_att_type", ["p2c", "c2p"]), ("position_buckets", 16),
        ("max_relative_positions", -1), ("share_att_key", True))),
    Family("roformer", "RoFormerConfig", wordpiece, (("embedding_size", HIDDEN),)),
    Family("modernbert", "ModernBertConfig", wordpiece, (
        ("num_hidden_layers", 4), ("local_attention", 8), ("global_attn_every_n_layers", 2), ("pad_token_id", 0),
        ("bos_token_id", 2), ("eos_token_id", 3), ("cls_token_id", 2), ("sep_token_id", 3))),
    Family("nomic_bert", "NomicBertConfig"),
    Family("jina_embeddings_v3", "JinaEmbeddingsV3Config", unigram, (("pad_token_id", 1),)),
    Family("eurobert", "EuroBertConfig", byte_level, (*_GROUPED, ("pad_token_id", 1))),
    Family("qwen2-bidirectional", "Qwen2Config", byte_level, (*_GROUPED, ("is_causal", False)), "lasttoken"),
    Family("qwen3", "Qwen3Config", lambda: byte_level(end=True), _GROUPED, "lasttoken"),
    Family("gemma3", "Gemma3TextConfig", byte_level, (
        *_GROUPED, ("use_bidirectional_attention", True), ("sliding_window", 8), ("query_pre_attn_scalar", 8),
        ("layer_types", ["sliding_attention", "full_attention"]))),
    Family("embedding_gemma2", "EmbeddingGemma2TextConfig", byte_level, (
        *_GROUPED, ("sliding_window", 5), ("layer_types", ["sliding_attention", "full_attention"]),
        ("global_head_dim", 16), ("hidden_size_per_layer_input", 8), ("embedding_dim", 24))),
    Family("mistral-causal", "MistralConfig", byte_level, (*_GROUPED, ("sliding_window", 6)), "lasttoken"),
    Family("mistral-bidirectional", "MistralConfig", byte_level, (
        *_GROUPED, ("sliding_window", None), ("is_causal", False))),
    Family("ministral3-bidirectional", "Ministral3Config", byte_level, (
        *_GROUPED, ("sliding_window", None), ("is_causal", False), ("rope_parameters", {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1}))),
    Family("llama-bidirectional", "LlamaConfig", byte_level, (*_GROUPED, ("is_causal", False))),
    Family("llama-causal", "LlamaConfig", byte_level, _GROUPED, "lasttoken"),
)  # fmt: skip


def family(name: str) -> Family:
    return next(each for each in FAMILIES if each.name == name)


def build(directory: Path, kind: Family, **overrides: Any) -> Any:
    """Write a plain Hugging Face directory; the stock model, with eager attention, that it was saved from."""
    config_class = getattr(transformers, kind.config)
    config = config_class(**{**_SMALL, **dict(kind.extra), **overrides})
    torch.manual_seed(sum(kind.name.encode()))
    config._attn_implementation = "eager"
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    model = MODEL_MAPPING[type(config)](config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Large enough that mistakes show, small enough that nothing saturates; norms stay near one.
            if "norm" in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0, 0.3 if parameter.dim() > 1 else 0.1)
    model.save_pretrained(directory)
    kind.tokenizer().save_pretrained(directory)
    return model


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def add_modules(
    directory: Path, pooling: str = "mean", *more: str, normalize: bool = True, **pooling_options: object
) -> None:
    """Make it a sentence-transformers directory in the new spelling; `more` are module names between the two."""
    base = "sentence_transformers.base.modules"
    kinds = [
        ("", f"{base}.transformer.Transformer"),
        ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    ]
    kinds += [(f"{n}_{kind}", f"{base}.{kind.lower()}.{kind}") for n, kind in enumerate(more, 2)]
    if normalize:
        kinds.append((f"{len(kinds)}_Normalize", f"{base}.normalize.Normalize"))
    modules = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(kinds)]
    write_json(directory / "modules.json", modules)
    write_json(directory / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write_json(
        directory / "1_Pooling" / "config.json",
        {"embedding_dimension": HIDDEN, "pooling_mode": pooling, "include_prompt": True} | pooling_options,
    )
