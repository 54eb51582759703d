"""Fixtures of the runtime's tests. One real model and one real server serve all tests that only read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from embedding_runtime.engine.model import Model
from embedding_runtime.models.loader import LoadRequest, load_model
from embedding_runtime.openmp import set_wait_policy
from huggingface_hub import constants

from tests.runtime.helpers import MINILM, ServerProcess, server

# As the server does. Tests import torch themselves, and run beside each other.
set_wait_policy(os.environ)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def minilm(cache: Path) -> Model:
    """The real all-MiniLM-L6-v2 in this process."""
    request = LoadRequest(str(MINILM), served_name="minilm", cache=cache, device="cpu", precision="float32")
    return load_model(request, lambda message: None)


@pytest.fixture(scope="session")
def minilm_server(cache: Path) -> Iterator[ServerProcess]:
    """The real all-MiniLM-L6-v2 behind a real socket."""
    arguments = ["--model", str(MINILM), "--served-model-name", "acme/minilm", "--alias", "minilm"]
    with server(*arguments, "--cache-dir", str(cache), "--device", "Cpu", "--precision", "Float32") as process:
        process.wait_until_ready()
        yield process


@pytest.fixture(scope="session")
def http(minilm_server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of that server."""
    with httpx.Client(base_url=minilm_server.url, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Loading a model forbids the hub for the rest of the process, and a server sets up logging for all of it: right
    for a server, but tests share their process."""
    os.environ.pop("HF_HUB_OFFLINE", None)
    constants.HF_HUB_OFFLINE = False
    root, runtime = logging.getLogger(), logging.getLogger("embedding_runtime")
    handlers, levels = root.handlers[:], (root.level, runtime.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    runtime.setLevel(levels[1])
    logging.captureWarnings(False)
