"""Which precision is computed with: the rule of Auto, what is refused, and what happens when a way fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_runtime.models import accelerate as module
from embedding_runtime.models.accelerate import realise
from embedding_runtime.models.backbone import Backbone
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.kernels import Speed
from embedding_runtime.models.linear import Kernel
from embedding_runtime.models.precision import Difference, Plan, compare, is_accurate, plans

from tests.runtime.models.checkpoints import TEXTS, add_modules, build, family
from tests.runtime.models.test_families import load, vectors

Speeds = Mapping[str, Mapping[Kernel, Speed]]


def speeds(bfloat16: float | None = None, float16: float | None = None) -> Speeds:
    """Kernels of which the half precisions take the given part of float32's time."""
    given = {"float32": 1.0, "bfloat16": bfloat16, "float16": float16}
    return {name: {Kernel.PLAIN: Speed(time, time)} for name, time in given.items() if time is not None}


@pytest.mark.parametrize(
    ("device", "measured", "comparable", "expected"),
    [
        ("cpu", speeds(0.5), True, ["bfloat16", "float32", "float32"]),
        ("cpu", speeds(0.8), True, ["float32", "float32"]),
        ("cpu", speeds(4), True, ["float32", "float32"]),
        ("cpu", speeds(0.5), False, ["float32", "float32"]),
        ("cpu", speeds(4, 0.3), True, ["float32", "float32"]),
        ("cuda", speeds(0.1, 0.1), True, ["bfloat16", "float16", "float32", "float32"]),
        ("cuda", speeds(0.9, 0.2), True, ["float16", "float32", "float32"]),
        ("cuda", speeds(0.1, 0.1), False, ["bfloat16", "float16", "float32", "float32"]),
    ],
)
def test_auto(device: str, measured: Speeds, comparable: bool, expected: list[str]) -> None:
    found = plans(None, device, measured, comparable=comparable)
    assert [plan.precision for plan in found] == expected
    assert all(plan.reason.startswith("Auto: ") for plan in found)
    assert found[-1].stock
    # On a GPU without memory for the comparison, speed alone decides.
    assert found[0].strict is (comparable or device == "cpu")


def test_what_a_device_cannot_do_is_refused() -> None:
    with pytest.raises(DirectoryError, match="Int8 is for CPUs"):
        plans("int8", "cuda", speeds(), comparable=True)
    with pytest.raises(DirectoryError, match="Int8 is not available on this CPU"):
        plans("int8", "cpu", speeds(), comparable=True)
    with pytest.raises(DirectoryError, match="Float16 more slowly than Float32"):
        plans("float16", "cpu", speeds(float16=4), comparable=True)
    assert plans("float16", "cpu", speeds(float16=0.5), comparable=True)[0].precision == "float16"


def test_difference_is_of_directions() -> None:
    first = np.array([[3, 4], [1, 0]], np.float32)
    assert compare(first, 7 * first) == Difference(pytest.approx(0, abs=1e-7), pytest.approx(1))
    assert compare(first, np.array([[4, 3], [1, 0]], np.float32)).min_cosine == pytest.approx(0.96)
    assert not is_accurate("bfloat16", Difference(0.01, 0.9990))
    assert is_accurate("int8", Difference(0.05, 0.991))
    assert not is_accurate("int8", Difference(float("nan"), float("nan")))
    assert not is_accurate("float32", Difference(1e-3, 1.0))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    build(path, family("bert"))
    add_modules(path)
    return path


def test_what_computes_is_described(directory: Path) -> None:
    computation = load(directory).identity.computation
    assert computation is not None
    assert (computation.device, computation.precision, computation.reason) == ("cpu", "float32", "asked for")
    assert computation.max_difference is not None
    assert computation.max_difference < 2e-6


def test_a_faster_way_that_fails_is_not_taken(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that raises nor one that gives other vectors: the stock model serves instead."""
    expected = vectors(load(directory), TEXTS)
    original = module.accelerate

    def broken(backbone: Backbone, plan: Plan) -> Backbone:
        if plan.stock:
            return original(backbone, plan)
        raise RuntimeError("could not create a primitive")

    def wrong(backbone: Backbone, plan: Plan) -> Backbone:
        made = original(backbone, plan)
        if not plan.stock:
            made.module.layers.append(made.module.layers[0])
        return made

    for way in (broken, wrong):
        monkeypatch.setattr(module, "accelerate", way)
        model = load(directory)
        assert model.identity.computation is not None
        assert model.identity.computation.kernel == "stock"
        np.testing.assert_allclose(vectors(model, TEXTS), expected, atol=2e-6)


def test_no_way_is_an_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(backbone: Backbone, plan: Plan) -> Backbone:
        raise RuntimeError("could not create a primitive")

    backbone = load(directory).backbone  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "accelerate", broken)
    plan = Plan("float32", Kernel.PLAIN, "asked for")
    with pytest.raises(DirectoryError, match="could not create a primitive"):
        realise([plan], lambda dtype: backbone, lambda it: np.ones((1, 2), np.float32), comparable=True)


@pytest.mark.parametrize(("name", "least"), [("bert", 0.98), ("llama-bidirectional", 0.98), ("modernbert", 0.98)])
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_lower_precisions_stay_close(tmp_path: Path, name: str, least: float, precision: str) -> None:
    """Seeded weights of this size are much harder on eight bits than trained ones."""
    build(tmp_path, family(name))
    add_modules(tmp_path)
    exact = vectors(load(tmp_path), TEXTS)
    model = load(tmp_path, precision=precision)
    rough = vectors(model, TEXTS)
    assert model.identity.precision == precision
    assert np.abs(exact - rough).max() > 1e-5
    assert (exact * rough).sum(axis=1).min() > least
    alone = np.concatenate([vectors(model, (text,)) for text in TEXTS])
    np.testing.assert_allclose(rough, alone, atol=3e-2)


def test_torch_dtype_of_weights(directory: Path) -> None:
    backbone = load(directory, precision="bfloat16").backbone  # type: ignore[attr-defined]
    assert backbone.forward([np.arange(3, 9, dtype=np.int32)]).dtype == torch.bfloat16
