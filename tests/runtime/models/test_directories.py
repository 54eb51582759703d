"""The directories users have: old and new layouts, shards, formats, modules, profiles, and what must be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from embedding_runtime.engine.model import InputTooLongError, InputType, Model, Pooling, Truncation
from embedding_runtime.errors import FingerprintMismatchError, ModelLoadError
from embedding_runtime.models.advance import Advance
from embedding_runtime.models.attention import Packed, pack
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.tokenizer import TokenIds
from safetensors.torch import load_file, save_file

from tests.runtime.models.checkpoints import HIDDEN, TEXTS, add_modules, build, byte_level, family, write_json
from tests.runtime.models.test_families import load, oracle, vectors


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A sentence-transformers directory and the stock model it holds."""
    directory = tmp_path_factory.mktemp("bert")
    stock = build(directory, family("bert"))
    add_modules(directory)
    return directory, stock


@pytest.fixture
def copy(bert: tuple[Path, Any], tmp_path: Path) -> Path:
    """The same directory, to be changed."""
    return Path(shutil.copytree(bert[0], tmp_path / "copy", ignore=shutil.ignore_patterns("cache", ".embedding*")))


def ids(model: Model, text: str, kind: InputType | None, truncation: Truncation) -> list[int]:
    payload = model.prepare([text], kind, truncation)[0].payload
    assert isinstance(payload, TokenIds)
    return payload.ids.tolist()


def reason(directory: Path, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(directory, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def edit(path: Path, **changes: Any) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def test_old_layout(bert: tuple[Path, Any], copy: Path) -> None:
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    write_json(
        copy / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ],
    )
    write_json(copy / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    write_json(
        copy / "1_Pooling/config.json",
        {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    )
    model = load(copy)
    assert model.identity.pooling == "Cls"
    assert model.identity.max_input_tokens == 20
    np.testing.assert_allclose(vectors(model, TEXTS[:2]), oracle(bert[1], copy, TEXTS[:2], "cls"), atol=2e-6)


def test_sharding_and_format_change_neither_vectors_nor_fingerprint(bert: tuple[Path, Any], copy: Path) -> None:
    reference = load(bert[0])
    expected = vectors(reference, TEXTS)
    weights = load_file(copy / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, members in parts.items():
        save_file({name: weights[name] for name in members}, copy / part, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: part for part, members in parts.items() for name in members}}
    write_json(copy / "model.safetensors.index.json", index)
    (copy / "model.safetensors").unlink()
    sharded = load(copy)
    np.testing.assert_array_equal(vectors(sharded, TEXTS), expected)
    assert sharded.identity.fingerprint == reference.identity.fingerprint

    for part in parts:
        (copy / part).unlink()
    (copy / "model.safetensors.index.json").unlink()
    torch.save({f"bert.{name}": tensor for name, tensor in weights.items()}, copy / "pytorch_model.bin")
    pickled = load(copy)
    np.testing.assert_array_equal(vectors(pickled, TEXTS), expected)
    assert pickled.identity.fingerprint == reference.identity.fingerprint


def test_fingerprint_covers_what_moves_vectors_and_nothing_else(bert: tuple[Path, Any], copy: Path) -> None:
    reference = load(bert[0]).identity.fingerprint
    assert (
        load(bert[0], served_name="another", precision="bfloat16", max_input_tokens=9).identity.fingerprint == reference
    )
    assert load(bert[0], query_prompt="query: ").identity.fingerprint != reference
    edit(copy / "1_Pooling/config.json", pooling_mode="cls")
    assert load(copy).identity.fingerprint != reference
    edit(copy / "1_Pooling/config.json", pooling_mode="mean")
    assert load(copy).identity.fingerprint == reference
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7, 7] += 1e-3
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    changed = load(copy).identity.fingerprint
    assert changed != reference
    with pytest.raises(FingerprintMismatchError, match="FingerprintMismatch"):
        load(copy, expected_fingerprint=reference)
    assert load(copy, expected_fingerprint=changed).identity.fingerprint == changed


def test_how_far_loading_is(copy: Path) -> None:
    seen: list[Advance] = []
    words: list[str] = []
    request = LoadRequest(str(copy), cache=copy / "cache", device="cpu")
    load_model(request, lambda told: seen.append(told) if isinstance(told, Advance) else words.append(told))
    size = (copy / "model.safetensors").stat().st_size
    last = {advance.step: advance for advance in seen}
    assert list(last) == [f"loading {copy}", f"computing the fingerprint of {copy}"]
    assert last[f"loading {copy}"] == Advance(f"loading {copy}", size, size)
    fingerprint = last[f"computing the fingerprint of {copy}"]
    # The tensors, and every file.
    assert fingerprint.done == fingerprint.total > 1.9 * size


def test_the_identity_is_computed_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(copy).identity
    assert (copy / ".embedding-runtime.json").exists()
    monkeypatch.setattr("embedding_runtime.models.identity.fingerprint", None)
    assert load(copy).identity.files == first.files


@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_dense_and_layer_norm(bert: tuple[Path, Any], copy: Path, activation: str) -> None:
    torch.manual_seed(5)
    weight, bias, gain = torch.randn(24, HIDDEN), torch.randn(24), torch.randn(24)
    add_modules(copy, "mean", "Dense", "LayerNorm", normalize=False)
    config = {"in_features": HIDDEN, "out_features": 24, "bias": True}
    # Tanh is what an absent activation means.
    extra = {} if activation == "Tanh" else {"activation_function": f"torch.nn.modules.linear.{activation}"}
    write_json(copy / "2_Dense/config.json", config | extra)
    write_json(copy / "3_LayerNorm/config.json", {"dimension": 24})
    save_file({"linear.weight": weight, "linear.bias": bias}, copy / "2_Dense/model.safetensors")
    torch.save({"norm.weight": gain, "norm.bias": bias}, copy / "3_LayerNorm/pytorch_model.bin")
    model = load(copy)
    assert (model.identity.dimensions, model.identity.normalized) == (24, False)
    pooled = torch.from_numpy(oracle_raw(bert[1], copy))
    activated = (pooled @ weight.T + bias).tanh() if activation == "Tanh" else pooled @ weight.T + bias
    expected = torch.nn.functional.layer_norm(activated, (24,), gain, bias)
    np.testing.assert_allclose(vectors(model, TEXTS), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [24, HIDDEN])
def test_dense_with_a_residual(bert: tuple[Path, Any], copy: Path, size: int) -> None:
    torch.manual_seed(6)
    weights = {"linear.weight": torch.randn(size, HIDDEN), "linear.bias": torch.randn(size)}
    if size != HIDDEN:
        weights["residual.weight"] = torch.randn(size, HIDDEN)
    add_modules(copy, "mean", "Dense", normalize=False)
    config = {"in_features": HIDDEN, "out_features": size, "bias": True, "activation_function": "torch.nn.Tanh"}
    write_json(copy / "2_Dense/config.json", config)
    save_file({name: value for name, value in weights.items() if name != "residual.weight"},
              copy / "2_Dense/model.safetensors")  # fmt: skip
    without = load(copy).identity.fingerprint
    save_file(weights, copy / "2_Dense/model.safetensors")
    write_json(copy / "2_Dense/config.json", config | {"use_residual": True, "module_output_name": None})
    model = load(copy)
    assert model.identity.fingerprint != without
    pooled = torch.from_numpy(oracle_raw(bert[1], copy))
    added = pooled if size == HIDDEN else pooled @ weights["residual.weight"].T
    expected = (pooled @ weights["linear.weight"].T + weights["linear.bias"]).tanh() + added
    np.testing.assert_allclose(vectors(model, TEXTS), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("key", ["module_input_name", "module_output_name"])
def test_a_dense_module_over_tokens_is_refused(copy: Path, key: str) -> None:
    add_modules(copy, "mean", "Dense")
    config = {"in_features": HIDDEN, "out_features": HIDDEN, key: "token_embeddings"}
    write_json(copy / "2_Dense/config.json", config)
    assert reason(copy).endswith(
        f"2_Dense/config.json: {key} 'token_embeddings' is not supported; "
        "a Dense module must map the pooled sentence_embedding"
    )


def oracle_raw(stock: Any, directory: Path) -> np.ndarray:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with torch.no_grad():
        states = [stock(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0] for text in TEXTS]
    return np.stack([state.mean(0).numpy() for state in states])


def test_prompts_by_input_type_and_left_out_of_pooling(bert: tuple[Path, Any], copy: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: ", "other": "x"}
    write_json(copy / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
    model = load(copy)
    assert model.identity.prompts == {"query": "query: ", "passage": "passage: "}
    counts = [model.prepare(["fox"], kind, Truncation.NONE)[0].tokens for kind in (InputType.QUERY, None)]
    assert counts[0] == counts[1] > load(bert[0]).prepare(["fox"], None, Truncation.NONE)[0].tokens
    expected = oracle(bert[1], copy, ("query: fox",), "mean")
    np.testing.assert_allclose(vectors(model, ("fox",)), expected, atol=2e-6)
    edit(copy / "1_Pooling/config.json", include_prompt=False)
    import sentence_transformers

    peer = sentence_transformers.SentenceTransformer(str(copy), device="cpu", local_files_only=True)
    theirs = peer.encode(list(TEXTS), prompt_name="query")
    np.testing.assert_allclose(vectors(load(copy), TEXTS), theirs, atol=2e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"query_length": 4, "document_length": 6},
        {"max_seq_length": 8, "document_length": 12},
        {"processing_kwargs": {"text": {"max_length": 5, "padding": True}}, "query_length": 9},
        {"processor_kwargs": {"model_max_length": 7}, "max_seq_length": 9},
        # More than its tokenizer says, which is 64.
        {"max_seq_length": 100},
        {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
         "module_output_name": "token_embeddings", "unpad_inputs": False, "model_args": {"torch_dtype": "float32"}},
    ],
)  # fmt: skip
def test_settings_of_the_transformer_module(copy: Path, settings: dict[str, Any]) -> None:
    """What sentence-transformers makes of them, for a text that is longer than they allow."""
    import sentence_transformers

    write_json(copy / "sentence_bert_config.json", settings)
    peer = sentence_transformers.SentenceTransformer(str(copy), device="cpu", local_files_only=True)
    model = load(copy)
    text = "the quick brown fox jumps over the lazy dog " * 12
    for kind, encode in (
        (InputType.QUERY, peer.encode_query), (InputType.PASSAGE, peer.encode_document), (None, peer.encode),
    ):  # fmt: skip
        item = model.prepare([text], kind, Truncation.END)[0]
        ours = model.embed([item.payload])[0]
        np.testing.assert_allclose(ours / np.linalg.norm(ours), encode([text])[0], atol=2e-6, err_msg=str(kind))
        assert item.tokens <= model.identity.max_input_tokens


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modality_config": {"text": {"method": "forward", "method_output_name": ["hidden_states", 0]}},
          "module_output_name": "token_embeddings"}, "modality_config.text.method_output_name ['hidden_states', 0]"),
        ({"modality_config": {"text": {"method": "get_text_features", "method_output_name": "pooler_output"}},
          "module_output_name": "sentence_embedding"}, "modality_config.text.method 'get_text_features'"),
        ({"modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}},
          "module_output_name": "token_embeddings"}, "modality_config.message"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs.text.add_special_tokens"),
        ({"processing_kwargs": {"common": {"truncation_side": "left"}}}, "processing_kwargs.common.truncation_side"),
        ({"query_expansion": {"strategy": "fixed", "length": 32}}, "query_expansion"),
        ({"config_args": {"is_decoder": True}}, "config_args.is_decoder True"),
        ({"model_args": {"subfolder": "onnx"}}, "model_args.subfolder 'onnx'"),
        ({"tokenizer_name_or_path": "other"}, "tokenizer_name_or_path 'other'"),
        ({"query_length": 0}, "query_length must be a positive integer"),
    ],
)  # fmt: skip
def test_settings_that_are_not_served_are_named(copy: Path, settings: dict[str, Any], words: str) -> None:
    write_json(copy / "sentence_bert_config.json", settings)
    assert reason(copy).startswith(f"sentence_bert_config.json: {words}")


def test_a_list_of_poolings_is_concatenated_as_written(copy: Path) -> None:
    import sentence_transformers

    edit(copy / "1_Pooling/config.json", pooling_mode=["mean", "cls", "max"])
    peer = sentence_transformers.SentenceTransformer(str(copy), device="cpu", local_files_only=True)
    np.testing.assert_allclose(vectors(load(copy), TEXTS), peer.encode(list(TEXTS)), atol=2e-6)


def test_normalising_something_else_is_refused(copy: Path) -> None:
    write_json(copy / "2_Normalize/config.json", {"module_input_name": "token_embeddings"})
    assert "2_Normalize/config.json: module_input_name 'token_embeddings' is not supported" in reason(copy)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "mpnet", "qwen3", "gemma3", "modernbert"])
def test_sentence_transformers_agrees(tmp_path: Path, name: str) -> None:
    import sentence_transformers

    kind = family(name)
    build(tmp_path, kind)
    add_modules(tmp_path, kind.pooling)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    peer.max_seq_length = 64
    texts = TEXTS[:4]
    np.testing.assert_allclose(vectors(load(tmp_path), texts), peer.encode(list(texts), batch_size=1), atol=2e-6)


def test_truncation_keeps_prompt_and_special_tokens(bert: tuple[Path, Any]) -> None:
    model = load(bert[0], query_prompt="query: ", max_input_tokens=12)
    words = "the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog"
    with pytest.raises(InputTooLongError):
        model.prepare([words], InputType.QUERY, Truncation.NONE)
    full = ids(load(bert[0], query_prompt="query: "), words, InputType.QUERY, Truncation.NONE)
    prompt = ids(load(bert[0]), "query:", None, Truncation.NONE)
    end = ids(model, words, InputType.QUERY, Truncation.END)
    start = ids(model, words, InputType.QUERY, Truncation.START)
    assert len(end) == len(start) == 12
    assert end == full[:11] + full[-1:]
    kept = len(prompt) - 1
    assert start == full[:kept] + full[-(12 - kept) :]


@pytest.mark.parametrize("truncation", [Truncation.START, Truncation.END])
def test_a_text_of_megabytes_is_cut_to_the_same_tokens(bert: tuple[Path, Any], truncation: Truncation) -> None:
    model = load(bert[0])
    words = "the quick brown fox jumps over the lazy dog "
    assert ids(model, words * 100, None, truncation) == ids(model, words * 50_000, None, truncation)
    with pytest.raises(InputTooLongError) as caught:
        model.prepare(["fox", words * 10_000], None, Truncation.NONE)
    assert caught.value.index == 1
    assert caught.value.length > 60_000


def test_limits_of_position_embeddings(tmp_path: Path) -> None:
    """RoBERTa's positions start behind the padding id, so two fewer tokens fit than the configuration says."""
    build(tmp_path, family("roberta"), max_position_embeddings=40)
    add_modules(tmp_path)
    model = load(tmp_path)
    assert model.identity.max_input_tokens == 38
    item = model.prepare(["fox " * 60], None, Truncation.END)[0]
    assert item.tokens == 38
    assert np.isfinite(model.embed([item.payload])).all()
    assert "more than the model's 38" in reason(tmp_path, max_input_tokens=39)


class TestNvidia:
    """Plain directories of NVIDIA's models, named by remote code that is never executed."""

    @pytest.fixture
    def bidirec(self, tmp_path: Path) -> tuple[Path, Any]:
        stock = build(tmp_path, family("llama-bidirectional"))
        edit(
            tmp_path / "config.json",
            model_type="llama_bidirec", architectures=["LlamaBidirectionalModel"], pooling="avg", temperature=0.02,
            auto_map={"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
        )  # fmt: skip
        (tmp_path / "llama_bidirectional_model.py").write_text("raise SystemExit('remote code ran')")
        return tmp_path, stock

    def test_llama_bidirec(self, bidirec: tuple[Path, Any]) -> None:
        directory, stock = bidirec
        model = load(directory)
        assert model.identity.prompts == {"query": "query: ", "passage": "passage: "}
        assert model.identity.pooling == "Mean"
        expected = oracle(stock, directory, tuple(f"query: {text}" for text in TEXTS), "mean")
        np.testing.assert_allclose(vectors(model, TEXTS), expected, atol=2e-6)

    def test_matryoshka_sizes(self, tmp_path: Path) -> None:
        build(tmp_path, family("llama-bidirectional"), hidden_size=512, head_dim=128)
        edit(tmp_path / "config.json", model_type="llama_bidirec", pooling="avg")
        assert load(tmp_path).identity.supported_dimensions == (384, 512)

        add_modules(tmp_path, embedding_dimension=512)
        prompts = {"query": "query: ", "document": "passage: "}
        write_json(tmp_path / "config_sentence_transformers.json", {"prompts": prompts})
        with_modules = load(tmp_path)
        assert with_modules.identity.supported_dimensions == (384, 512)
        untyped, query = (with_modules.prepare(["fox"], kind, Truncation.NONE)[0] for kind in (None, InputType.QUERY))
        assert untyped.key == query.key
        write_json(tmp_path / "config_sentence_transformers.json", {"matryoshka_dimensions": [128]})
        assert load(tmp_path).identity.supported_dimensions == (128, 512)

    @pytest.mark.parametrize(
        ("kind", "changes", "name"),
        [
            ("ministral3-bidirectional", {"pooling": "avg"}, "nvidia/nemotron-3-embed-1b"),
            ("ministral3-bidirectional", {"model_type": "ministral3_bidirec", "pooling": "avg"}, "m"),
        ],
    )
    def test_ministral_has_its_full_size_only(
        self, tmp_path: Path, kind: str, changes: dict[str, Any], name: str
    ) -> None:
        build(tmp_path, family(kind), hidden_size=512, head_dim=128)
        edit(tmp_path / "config.json", is_causal=False, **changes)
        model = load(tmp_path, served_name=name)
        assert (model.identity.supported_dimensions, model.identity.prompts["query"]) == ((512,), "query: ")

    @pytest.mark.parametrize("kind", ["llama-bidirectional", "mistral-bidirectional"])
    def test_a_decoder_of_somebody_else_gets_no_prompts_of_nvidia(self, tmp_path: Path, kind: str) -> None:
        directory = tmp_path / "somebody"
        build(directory, family(kind), hidden_size=512, head_dim=128)
        edit(directory / "config.json", is_causal=False)
        assert "--pooling" in reason(directory)
        identity = load(directory, pooling=Pooling.MEAN).identity
        assert (identity.supported_dimensions, dict(identity.prompts)) == ((512,), {})
        add_modules(directory, embedding_dimension=512)
        write_json(directory / "config_sentence_transformers.json", {"prompts": {"query": "Q: ", "document": "D: "}})
        model = load(directory)
        assert model.identity.supported_dimensions == (512,)
        untyped, query = (model.prepare(["fox"], kind, Truncation.NONE)[0] for kind in (None, InputType.QUERY))
        assert untyped.tokens < query.tokens

    def test_the_pooling_must_be_named(self, bidirec: tuple[Path, Any]) -> None:
        edit(bidirec[0] / "config.json", pooling=None)
        assert "pooling None is not one of" in reason(bidirec[0])
        edit(bidirec[0] / "config.json", pooling="last")
        assert load(bidirec[0]).identity.pooling == "LastToken"

    def test_ministral3(self, tmp_path: Path) -> None:
        stock = build(tmp_path, family("ministral3-bidirectional"))
        edit(tmp_path / "config.json", pooling="avg", is_causal=False)
        expected = oracle(stock, tmp_path, tuple(f"query: {text}" for text in TEXTS), "mean")
        np.testing.assert_allclose(vectors(load(tmp_path), TEXTS), expected, atol=2e-6)

    def test_nv_embedqa_e5_v5(self, tmp_path: Path) -> None:
        build(tmp_path, family("bert"))
        model = load(tmp_path, served_name="nvidia/nv-embedqa-e5-v5")
        assert (model.identity.pooling, model.identity.prompts["passage"]) == ("Mean", "passage: ")
        assert "--pooling" in reason(tmp_path, served_name="unknown")

    def test_bge_m3(self, tmp_path: Path) -> None:
        build(tmp_path, family("xlm-roberta"))
        model = load(tmp_path, served_name="baai/bge-m3")
        assert (model.identity.pooling, dict(model.identity.prompts)) == ("Cls", {})


def test_the_causal_trap_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that should look both ways but is run looking back must not become ready, nor the other way round."""
    from embedding_runtime.models import backbone as module

    def backwards(lengths: Any, device: Any, *, causal: bool) -> Packed:
        return pack(lengths, device, causal=not causal)

    for name in ("llama-bidirectional", "qwen3"):
        directory = tmp_path / name
        build(directory, family(name))
        add_modules(directory)
        load(directory)
        with monkeypatch.context() as patch:
            patch.setattr(module, "pack", backwards)
            assert "its vectors would be wrong" in reason(directory)


def custom_module(directory: Path) -> None:
    modules = json.loads((directory / "modules.json").read_text())
    write_json(directory / "modules.json", [*modules, {"idx": 3, "name": "3", "path": "", "type": "custom.Module"}])


def drop_weight(directory: Path, name: str) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights[name]
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def add_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    save_file(weights | {"adapter.weight": torch.zeros(2)}, directory / "model.safetensors", {"format": "pt"})


def poison_pickle(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({"x": Path("/")}, directory / "pytorch_model.bin")


NAN = "embeddings.word_embeddings.weight"


def spoil(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights[NAN][:] = float("nan")
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (custom_module, "module 'custom.Module' of modules.json is not supported"),
        (lambda d: drop_weight(d, "encoder.layer.1.output.dense.weight"), "encoder.layer.1.output.dense.weight"),
        (add_weight, "'adapter.weight'"),
        (poison_pickle, "pytorch_model.bin"),
        (spoil, "not finite"),
        (lambda d: edit(d / "config.json", intermediate_size=64), "do not fit"),
        (lambda d: edit(d / "config.json", quantization_config={"quant_method": "fp8"}), "quantised checkpoints"),
        (lambda d: edit(d / "1_Pooling/config.json", pooling_mode="attention"), "'attention' is not supported"),
        (lambda d: write_json(d / "config_sentence_transformers.json", {"model_type": "CrossEncoder"}), "CrossEncoder"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer"),
        (lambda d: edit(d / "sentence_bert_config.json", transformer_task="fill-mask"), "'fill-mask'"),
    ],
)
def test_refusals(copy: Path, damage: Any, words: str) -> None:
    damage(copy)
    assert words in reason(copy)


def towers(**more: Any) -> dict[str, Any]:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": 400, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return {"text_config": shape | text, "vision_config": shape | {"image_size": 32, "patch_size": 16}} | more


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("CLIP", towers(projection_dim=16), "leave --pooling (EMBEDDING_POOLING) out"),
        ("ChineseCLIP", towers(projection_dim=16), "model type 'chinese_clip' has no hidden state for each token"),
        ("ViT", towers()["vision_config"], "model type 'vit' has no hidden state for each token"),
        ("T5", {"vocab_size": 400, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
         "model type 't5' is an encoder-decoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_pooled_is_refused(tmp_path: Path, kind: str, config: dict[str, Any], words: str) -> None:
    getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config)).save_pretrained(tmp_path)
    byte_level().save_pretrained(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", {"size": 32})
    assert words in reason(tmp_path, pooling=Pooling.LAST_TOKEN)


def test_paths_out_of_the_directory_are_refused(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    write_json(copy / "modules.json", modules)
    assert "points out of the model directory" in reason(copy)


def test_half_precision_stays_close(bert: tuple[Path, Any]) -> None:
    exact, rough = vectors(load(bert[0]), TEXTS), vectors(load(bert[0], precision="bfloat16"), TEXTS)
    assert float((exact * rough).sum(1).min()) > 0.999
