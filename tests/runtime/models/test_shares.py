"""How the device is divided among batches, and that dividing it changes no vector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from embedding_runtime.engine.model import Model, Parallel, Truncation
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.models.shares import CpuShares, CudaShares, layer_size, threads_for
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.helpers import MINILM

LAYER = 384 * (384 + 1536) // 2


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_lone_short_text_is_not_divided_and_a_long_one_is() -> None:
    assert threads_for(16, 8, LAYER) == 1
    assert threads_for(64, 8, LAYER) == 2
    assert threads_for(10_000, 8, LAYER) == 8
    # Eight billion parameters: every product is worth it.
    assert threads_for(1, 8, 4096 * (4096 + 12288) // 2) == 3


@given(st.integers(1, 64), st.one_of(st.none(), st.integers(1, 100)), st.integers(1, 100_000), st.data())
def test_nobody_takes_more_than_there_is(threads: int, workers: int | None, tokens: int, data: st.DataObject) -> None:
    shares = CpuShares(threads, LAYER, workers)
    assert 1 <= shares.workers <= threads
    parts = data.draw(st.integers(1, shares.workers))
    used = shares.take(parts, tokens)
    assert 1 <= used <= parts
    assert 1 <= torch.get_num_threads() <= threads


@pytest.mark.parametrize("threads", [1, 2, 7, 8, 9, 12, 15, 20, 31, 64])
def test_all_threads_are_used_when_all_workers_work(threads: int) -> None:
    shares = CpuShares(threads, LAYER)
    found = []

    def worker() -> None:
        shares.take(1, 1_000_000)
        found.append(torch.get_num_threads())

    for _ in range(shares.workers):
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    assert sum(found) == threads
    assert max(found) - min(found) <= 1


def test_every_thread_has_a_number_of_its_own() -> None:
    shares = CpuShares(2, LAYER)
    shares.take(2, 10_000)
    found = []

    def other() -> None:
        shares.take(1, 10_000)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), found) == (2, [1])


def test_a_gpu_has_one_batch_at_a_time_unless_asked_for_more() -> None:
    assert CudaShares().workers == 1
    assert CudaShares(2).workers == 2
    assert CudaShares().take(1, 100) == 1


def test_the_size_of_a_layer_is_read_from_any_configuration() -> None:
    assert layer_size(SimpleNamespace(hidden_size=384, intermediate_size=1536)) == LAYER
    assert layer_size(SimpleNamespace(dim=768, hidden_dim=3072)) == 768 * (768 + 3072) // 2
    assert layer_size(SimpleNamespace(hidden_size=64)) == 64 * (64 + 256) // 2


def texts() -> list[str]:
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "rain", "falls", "on", "old"]
    return [" ".join(words[index % 7 : index % 7 + 1 + index % 8] * (1 + index % 5)) for index in range(24)]


def test_vectors_are_the_same_side_by_side(tmp_path: Path) -> None:
    """Two threads with a batch each, over and over, against one text after the other."""
    request = LoadRequest(str(MINILM), cache=tmp_path, device="cpu", precision="float32", threads=2)
    model: Model = load_model(request, lambda _: None)
    assert isinstance(model, Parallel)
    assert model.workers == 2
    items = model.prepare(texts(), None, Truncation.END)
    alone = np.concatenate([model.embed([item.payload]) for item in items])

    def embed(turn: int) -> float:
        assert isinstance(model, Parallel)
        order = np.random.default_rng(turn).permutation(len(items))[: 4 + turn % 20]
        model.take(1 + turn % 2, sum(items[index].tokens for index in order))
        vectors = model.embed([items[index].payload for index in order])
        return float(np.abs(vectors - alone[order]).max())

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(embed, range(60))) <= 1e-6


def test_threads_that_are_one_make_one_worker(tmp_path: Path) -> None:
    request = LoadRequest(str(MINILM), cache=tmp_path, device="cpu", precision="float32", threads=1)
    model = load_model(request, lambda _: None)
    assert isinstance(model, Parallel)
    assert model.workers == 1
