"""Serving a repository of the hub: progress, revisions, refusals, restarts without the hub."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from embedding_runtime.models import source

from tests.runtime.helpers import server, wait_until
from tests.runtime.hub import COMMIT, Hub, hub
from tests.runtime.models.checkpoints import HIDDEN, add_modules, build, family, write_json

NAME = "acme/tiny"


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    directory = tmp_path_factory.mktemp("repository")
    build(directory, family("bert"), vocab_size=40_000)
    add_modules(directory)
    (directory / "README.md").write_text("not needed")
    (directory / "remote_code.py").write_text("raise SystemExit('remote code ran')")
    with hub(NAME, directory) as it:
        yield it


def environment(it: Hub, tmp_path: Path) -> dict[str, str]:
    """A container's: nothing but the cache directory can be written."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    home.chmod(0o500)
    return {"HF_ENDPOINT": it.url, "HOME": str(home), "EMBEDDING_CACHE_DIR": str(tmp_path / "cache")}


def test_download_with_progress_then_restart_without_the_hub(it: Hub, tmp_path: Path) -> None:
    it.hold.clear()
    variables = environment(it, tmp_path)
    with server("--model", NAME, "--revision", "main", environment=variables) as process:
        url = process.wait_for_port()

        def message() -> str:
            return str(httpx.get(f"{url}/v1/health/ready").json()["message"])

        wait_until(lambda: message().startswith(f"downloading {NAME}: "), 60, "download progress")
        assert "MB" in message()
        assert "%" in message()
        assert httpx.get(f"{url}/v1/health/live").status_code == 200
        it.hold.set()
        process.wait_until_ready()
        manifest = httpx.get(f"{url}/v1/manifest").json()["model"]
        assert (manifest["id"], manifest["source"], manifest["revision"]) == (NAME, NAME, COMMIT)
        assert any("downloading" in line for line in process.lines)
        # Nothing is fetched once it is ready, nor was anything that is not needed.
        before = len(it.requests)
        assert httpx.post(f"{url}/v1/embeddings", json={"model": NAME, "input": "fox"}).status_code == 200
        assert len(it.requests) == before
        assert not any("README" in request or ".py" in request for request in it.requests)
    offline = variables | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    with server("--model", NAME, "--revision", COMMIT, environment=offline) as process:
        process.wait_until_ready()
        again = httpx.get(f"{process.url}/v1/manifest").json()["model"]
        assert again["fingerprint"] == manifest["fingerprint"]
    assert os.listdir(tmp_path / "home") == []


def test_sigterm_ends_a_stalled_download_at_once(it: Hub, tmp_path: Path) -> None:
    """The client's own threads wait for the hub; the process must not wait for them."""
    it.hold.clear()
    try:
        with server("--model", NAME, "--revision", COMMIT, environment=environment(it, tmp_path)) as process:
            url = process.wait_for_port()

            def downloading() -> bool:
                return bool(httpx.get(f"{url}/v1/health/ready").json()["message"].startswith("downloading"))

            wait_until(downloading, 60, "download")
            began = time.monotonic()
            process.process.send_signal(signal.SIGTERM)
            assert process.wait_for_exit(30) == 0
            assert time.monotonic() - began < 5
            assert process.lines[-1].endswith("stopped")
            it.hold.set()
        # What was left half way is no obstacle to the next start.
        with server("--model", NAME, "--revision", COMMIT, environment=environment(it, tmp_path)) as process:
            process.wait_until_ready()
    finally:
        it.hold.set()


def test_an_unknown_revision_and_repository_are_named(it: Hub, tmp_path: Path) -> None:
    variables = environment(it, tmp_path)
    with server("--model", NAME, "--revision", "no-such", environment=variables) as process:
        assert process.wait_for_exit() == 3
        assert process.lines[-1] == f"error: cannot load model {NAME}: the hub has no revision 'no-such' of it"
    with server("--model", "acme/other", environment=variables) as process:
        assert process.wait_for_exit() == 3
        assert "the hub has no such repository" in process.lines[-1]


def test_a_gated_repository_says_what_to_do(it: Hub, tmp_path: Path) -> None:
    it.gated = True
    try:
        with server("--model", NAME, environment=environment(it, tmp_path)) as process:
            assert process.wait_for_exit() == 3
            assert "give HF_TOKEN" in process.lines[-1]
    finally:
        it.gated = False


def test_pickled_weights_of_one_module_beside_safetensors_of_another(tmp_path: Path) -> None:
    """Each folder decides by itself: many repositories were converted at their root only."""
    directory = tmp_path / "repository"
    directory.mkdir()
    build(directory, family("bert"))
    add_modules(directory, "mean", "Dense")
    write_json(directory / "2_Dense/config.json", {"in_features": HIDDEN, "out_features": 16, "bias": False})
    torch.save({"linear.weight": torch.randn(16, HIDDEN)}, directory / "2_Dense/pytorch_model.bin")
    (directory / "pytorch_model.bin").write_bytes(b"the same weights again")
    cache = tmp_path / "cache"
    with hub(NAME, directory) as it:
        variables = environment(it, tmp_path)
        with server("--model", NAME, "--revision", COMMIT, environment=variables) as process:
            process.wait_until_ready()
            manifest = httpx.get(f"{process.url}/v1/manifest").json()["model"]
        assert manifest["dimensions"] == 16
        fetched = {request for request in it.requests if request.startswith("GET") and request.endswith(".bin")}
        assert len(fetched) == 1
        assert "2_Dense" in fetched.pop()
    # Whole: served without a hub. The module's weights missing: not taken for whole.
    found = source._already_downloaded(NAME, COMMIT, cache)
    assert found is not None
    (found / "2_Dense/pytorch_model.bin").unlink()
    assert source._already_downloaded(NAME, COMMIT, cache) is None
