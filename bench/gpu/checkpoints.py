"""Seeded random checkpoints of real shapes, written once: speed does not depend on what the weights are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from bench.gpu.shapes import Shape

_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"
_SPECIAL = {"bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "llama": ("<|begin|>", "<|end|>")}
_WORDS = 4000


def words() -> Iterator[str]:
    """Made-up words of four letters, consonants and vowels in turn."""
    syllables = ["".join(pair) for pair in product(_CONSONANTS, _VOWELS)]
    return ("".join(pair) for pair in product(syllables, syllables))


def build(directory: Path, shape: Shape, seed: int = 0) -> None:
    """Write a model directory as sentence-transformers writes it, unless a whole one is there."""
    complete = directory / ".complete"
    if complete.exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    _write_weights(directory, shape, seed)
    (_write_wordpiece if shape.kind == "bert" else _write_bpe)(directory)
    _write_modules(directory, shape)
    # The benchmark's texts are made of these; each is one token.
    (directory / "vocab.txt").write_text("\n".join((*_SPECIAL[shape.kind], *islice(words(), _WORDS))), encoding="utf-8")
    complete.touch()


def _write_weights(directory: Path, shape: Shape, seed: int) -> None:
    import torch
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate, "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
    }  # fmt: skip
    torch.manual_seed(seed)
    if shape.kind == "bert":
        model = BertModel(BertConfig(**sizes), add_pooling_layer=False)
    else:
        model = LlamaModel(LlamaConfig(**sizes, num_key_value_heads=shape.key_value_heads, is_causal=False))
    model.to(torch.bfloat16).save_pretrained(directory)


def _write_wordpiece(directory: Path) -> None:
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL["bert"], *islice(words(), _WORDS)))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    _write_tokenizer(directory, tokenizer)


def _write_bpe(directory: Path) -> None:
    """Byte-level BPE whose merges make each word one token: letters to syllables, syllables to words, then the space.

    A vowel and a consonant never merge, so no order of merges can get stuck half way.
    """
    chosen = list(islice(words(), _WORDS))
    syllables = ["".join(pair) for pair in product(_CONSONANTS, _VOWELS)]
    merges = [(syllable[0], syllable[1]) for syllable in syllables]
    merges += [(word[:2], word[2:]) for word in chosen]
    merges += [("Ġ", word) for word in chosen]
    tokens = [*_SPECIAL["llama"], *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [first + second for first, second in merges]
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    _write_tokenizer(directory, tokenizer)


def _write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def _write_modules(directory: Path, shape: Shape) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    _write_json(directory / "modules.json", modules)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": shape.positions, "do_lower_case": False})
    pooling = {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True}
    _write_json(directory / "1_Pooling" / "config.json", pooling)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
