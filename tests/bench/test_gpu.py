"""The GPU benchmark's shapes and checkpoints, and its whole way on a CPU with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from bench.errors import BenchError
from bench.gpu import checkpoints
from bench.gpu.cli import app, chosen_shapes, device_name
from bench.gpu.measure import Speed
from bench.gpu.report import best, summary
from bench.gpu.shapes import SHAPES, Shape, tiny
from bench.texts import exact_texts, vocabulary

BERT_BASE, _, LLAMA = SHAPES


def test_arithmetic_of_bert_base_is_twice_its_linear_weights_and_the_attention() -> None:
    linear = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert BERT_BASE.flops_per_token(0) == 2 * linear
    assert BERT_BASE.flops_per_token(512) - BERT_BASE.flops_per_token(0) == 4 * 12 * 512 * 768


@pytest.mark.parametrize("shape", [BERT_BASE, LLAMA], ids=lambda shape: shape.kind)
def test_a_checkpoint_has_texts_of_exact_lengths(shape: Shape, tmp_path: Path) -> None:
    checkpoints.build(tmp_path / "model", tiny(shape))
    written = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    words = vocabulary(tmp_path / "model")
    assert len(words) > 1000
    for tokens in (50, 512):
        lengths = {len(tokenizer.encode(text).ids) for text in exact_texts(20, tokens, words, 1)}
        assert lengths == {tokens}
    checkpoints.build(tmp_path / "model", tiny(shape))
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == written


def speed(model: str, where: str, rate: float, failures: int = 0) -> Speed:
    return Speed(model, "BFloat16", where, 50, 32, 64, None, rate, rate / 50, 1.0, 2.0, failures)


def test_the_best_figure_without_failures_meets_the_goal_of_its_device() -> None:
    speeds = [speed("bert-base", "HTTP", 1e6), speed("bert-base", "HTTP", 2.2e6), speed("bert-base", "HTTP", 9e6, 1)]
    found = best(speeds, "bert-base", "HTTP", 50)
    assert found is not None
    assert found.tokens_per_second == 2.2e6
    assert summary(speeds, [BERT_BASE], "NVIDIA H200")[1][-1] == "pass (2.1 M)"
    assert summary(speeds[:1], [BERT_BASE], "NVIDIA H200")[1][-1] == "FAIL (2.1 M)"
    assert summary(speeds, [BERT_BASE], "NVIDIA L4")[1][-1] == "–"


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(BenchError, match="none of bert-base, bert-large, llama-1b"):
        chosen_shapes("bert-huge")
    with pytest.raises(BenchError, match="needs an NVIDIA GPU"):
        device_name("gpu")
    assert device_name("cpu")


@pytest.mark.model
def test_the_whole_way_on_a_cpu(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--tiny", "--models", "bert-base", "--precisions", "Float32", "--seconds", "0.2"]
    result = CliRunner().invoke(
        app, [*arguments, "--output", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")]
    )
    assert result.exit_code == 0, result.output
    (written,) = tmp_path.glob("gpu-*/result.json")
    speeds = json.loads(written.read_text())["speeds"]
    assert {(each["where"], each["length"]) for each in speeds} == {
        (where, length) for where in ("forward", "in process", "HTTP") for length in (50, 512)
    }
    assert all(each["tokens_per_second"] > 0 and not each["failures"] for each in speeds)
