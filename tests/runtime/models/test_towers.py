"""Towers get the fastest kernel where their vectors stay the same, and are left as they are where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_runtime.engine.model import ImageInput, InputType, Matrix, Truncation
from embedding_runtime.models import linear, towers
from embedding_runtime.models.kernels import candidates
from embedding_runtime.models.linear import Kernel, Linear
from embedding_runtime.models.towers import accelerate_towers

from tests.runtime.models.test_vl_oracle import load, vectors
from tests.runtime.models.vl_checkpoints import build, picture, png

CPU = torch.device("cpu")
FAST = [kernel for kernel in candidates(torch.float32) if kernel is not Kernel.PLAIN]


class Loads:
    """Two layers with a norm in between, and how often they were loaded."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> torch.nn.Module:
        self.count += 1
        torch.manual_seed(3)
        return torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.LayerNorm(96), torch.nn.Linear(96, 32)).eval()


@torch.inference_mode()  # type: ignore[untyped-decorator]
def embed(module: torch.nn.Module) -> Matrix:
    generator = torch.Generator().manual_seed(1)
    rows: Matrix = module(torch.randn(5, 64, generator=generator)).numpy()
    return rows


@pytest.mark.parametrize("kernel", FAST)
def test_every_kernel_gives_the_same_vectors(kernel: Kernel) -> None:
    loads = Loads()
    module, computation = accelerate_towers(loads, lambda module: [module], embed, "float32", CPU, kernel)
    assert loads.count == 1
    assert [type(layer).__bases__[0] for layer in (module[0], module[2])] == [Linear, Linear]  # type: ignore[index]
    np.testing.assert_allclose(embed(module), embed(loads()), atol=2e-5)
    assert computation.kernel == str(kernel)
    assert computation.max_difference is not None
    assert computation.max_difference < 2e-5


class Inexact(linear.PlainLinear):
    """Wrong in the fourth digit."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out + 1e-3 * out.roll(1, -1)


class Unable(linear.PlainLinear):
    """Raises what a library raises."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")


@pytest.mark.parametrize("layer", [Inexact, Unable])
def test_a_kernel_that_is_wrong_here_is_not_used(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "make_linear", lambda kernel, weight, bias: layer(weight, bias))
    loads = Loads()
    module, computation = accelerate_towers(loads, lambda module: [module], embed, "float32", CPU, Kernel.ONEDNN)
    assert loads.count == 2
    np.testing.assert_array_equal(embed(module), embed(loads()))
    assert (computation.kernel, computation.max_difference) == (str(Kernel.PLAIN), None)


@pytest.mark.parametrize("kernel", [Kernel.PLAIN, *FAST])
def test_a_model_that_sees_with_every_kernel(tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "measure", lambda dtype: {})
    monkeypatch.setattr(towers, "choose", lambda speeds: Kernel.PLAIN)
    directory = build(tmp_path / "model")
    inputs: list[Any] = ["a vector", ImageInput(png(picture(60, 40))), ImageInput(png(picture(20, 20)), "fox")]
    plain: Any = load(directory)
    expected = vectors(plain, plain.prepare(inputs, InputType.PASSAGE, Truncation.NONE))
    monkeypatch.setattr(towers, "choose", lambda speeds: kernel)
    model: Any = load(directory)
    assert model.identity.computation.kernel == str(kernel)
    packed = [layer for part in (model._model.vision, model._model.language, model._model.projector)
              for layer in part.modules() if isinstance(layer, Linear)]  # fmt: skip
    # Six in each of three layers that look, seven in each of two that read, two between them.
    assert len(packed) == (0 if kernel is Kernel.PLAIN else 3 * 6 + 2 * 7 + 2)
    found = vectors(model, model.prepare(inputs, InputType.PASSAGE, Truncation.NONE))
    assert np.abs(found - expected).max() <= 2e-5
    assert model.identity.fingerprint == plain.identity.fingerprint
