"""Every matrix kernel gives torch's own result, for any number of rows and whatever rows are beside a row."""

from __future__ import annotations

import pytest
import torch
from embedding_runtime.models.kernels import Speed, candidates, choose, measure
from embedding_runtime.models.linear import Kernel, make_linear, replace_linears

_ROWS = (1, 2, 15, 16, 17, 64, 300)


def problem(rows: int, size: int = 96, outputs: int = 80) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return (
        torch.randn(rows, size, generator=generator),
        torch.randn(outputs, size, generator=generator) * 0.1,
        torch.randn(outputs, generator=generator),
    )


@pytest.mark.parametrize("kernel", candidates(torch.float32))
@pytest.mark.parametrize("bias", [True, False])
def test_float32_kernels_agree(kernel: Kernel, bias: bool) -> None:
    for rows in _ROWS:
        x, weight, offset = problem(rows)
        added = offset if bias else None
        expected = torch.nn.functional.linear(x, weight, added)
        layer = make_linear(kernel, weight, added)
        torch.testing.assert_close(layer(x), expected, atol=2e-6, rtol=0)
        torch.testing.assert_close(layer(x[None])[0], expected, atol=2e-6, rtol=0)
        torch.testing.assert_close(layer.with_gelu(x), torch.nn.functional.gelu(expected), atol=2e-6, rtol=0)
        assert (layer.in_features, layer.out_features) == (96, 80)


@pytest.mark.parametrize("kernel", candidates(torch.bfloat16))
def test_bfloat16_kernels_agree(kernel: Kernel) -> None:
    x, weight, bias = (part.bfloat16() for part in problem(33))
    torch.testing.assert_close(make_linear(kernel, weight, bias)(x), torch.nn.functional.linear(x, weight, bias))


@pytest.mark.skipif(Kernel.INT8 not in measure(torch.float32, (Kernel.PLAIN, Kernel.INT8)), reason="no int8 here")
def test_int8_is_close_and_row_by_row() -> None:
    for rows in _ROWS:
        x, weight, bias = problem(rows)
        # Tokens of very different size: one scale for all of them would lose the small ones.
        x = x * torch.logspace(-3, 3, rows)[:, None]
        layer = make_linear(Kernel.INT8, weight, bias)
        exact = torch.nn.functional.linear(x, weight)
        got = layer(x) - bias
        cosine = torch.nn.functional.cosine_similarity(got, exact)
        assert cosine.min() > 0.999
        alone = torch.cat([layer(row[None]) for row in x])
        torch.testing.assert_close(layer(x), alone, atol=0, rtol=1e-6)


@pytest.mark.skipif(Kernel.INT8 not in measure(torch.float32, (Kernel.PLAIN, Kernel.INT8)), reason="no int8 here")
def test_int8_of_zeros_is_the_bias() -> None:
    _, weight, bias = problem(1)
    torch.testing.assert_close(make_linear(Kernel.INT8, weight * 0, bias)(torch.zeros(3, 96)), bias.expand(3, -1))


def test_replacing_keeps_tied_weights_and_gives_memory_back() -> None:
    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 8)
            self.words = torch.nn.Embedding(5, 8)
            self.head = torch.nn.Linear(8, 5, bias=False)
            self.head.weight = self.words.weight

    model = Model()
    original = model.first
    x = torch.randn(2, 8)
    expected = original(x)
    assert replace_linears(model, lambda weight, bias: make_linear(Kernel.PLAIN, weight, bias)) == 1
    torch.testing.assert_close(model.first(x), expected)
    assert original.weight is None
    assert model.head.weight is model.words.weight


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({Kernel.PLAIN: Speed(1, 1)}, Kernel.PLAIN),
        ({Kernel.PLAIN: Speed(1, 1), Kernel.ONEDNN: Speed(0.99, 0.98)}, Kernel.PLAIN),
        ({Kernel.PLAIN: Speed(1, 1), Kernel.ONEDNN: Speed(0.6, 0.4)}, Kernel.ONEDNN),
        # An Intel CPU: packing helps few rows most with MKL, and costs nothing for many.
        ({Kernel.PLAIN: Speed(1, 1), Kernel.ONEDNN: Speed(0.7, 1), Kernel.MKL: Speed(0.5, 1)}, Kernel.MKL),
        # Faster for one query, but at the price of every batch.
        ({Kernel.PLAIN: Speed(1, 1), Kernel.ONEDNN: Speed(0.5, 2.5)}, Kernel.PLAIN),
    ],
)
def test_the_faster_kernel_is_chosen(speeds: dict[Kernel, Speed], chosen: Kernel) -> None:
    assert choose(speeds) is chosen


def test_measuring_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    assert Kernel.PLAIN in measure(torch.float32)
    assert torch.get_num_threads() == threads
