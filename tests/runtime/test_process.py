"""The process: what it says and how it ends when something is wrong, and how it stops."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.runtime.helpers import MINILM, server, wait_until

pytestmark = pytest.mark.model


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the model that may be broken; its weights are copied, not linked."""
    return Path(shutil.copytree(MINILM, tmp_path / "model"))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda m: truncate(m / "model.safetensors"), "model.safetensors is truncated or corrupt"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 1000), "model.safetensors is corrupt"),
        (lambda m: (m / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda m: (m / "config.json").write_text('{"model_type": "no-such-thing"}'), "'no-such-thing'"),
        (lambda m: (m / "1_Pooling/config.json").unlink(), "1_Pooling/config.json is missing"),
        (
            lambda m: [(m / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
            "tokenizer.json is missing, and no other vocabulary is there",
        ),
        (lambda m: (m / "tokenizer.json").write_text("{]"), "tokenizer.json is not valid JSON"),
        (lambda m: (m / "modules.json").write_text("{}"), "modules.json must hold a list"),
        (lambda m: shutil.rmtree(m), "no such directory"),
    ],
)
def test_a_damaged_model_is_a_one_line_error(
    copy: Path, damage: Callable[[Path], object], reason: str, cache: Path
) -> None:
    damage(copy)
    with server("--model", str(copy), "--cache-dir", str(cache)) as process:
        assert process.wait_for_exit() == 3
        assert process.lines[-1].startswith(f"error: cannot load model {copy}: ")
        assert reason in process.lines[-1]


def test_an_unreachable_hub_is_a_one_line_error(cache: Path) -> None:
    arguments = ["--model", "acme/minilm", "--cache-dir", str(cache)]
    with server(*arguments, environment={"HF_ENDPOINT": "http://127.0.0.1:9"}) as process:
        assert process.wait_for_exit() == 3
        assert process.lines[-1].startswith("error: cannot load model acme/minilm: the hub cannot be reached")


def test_a_port_in_use_is_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with server("--model", str(MINILM), "--port", str(port)) as process:
            assert process.wait_for_exit() == 5
            assert "the port is in use" in process.lines[-1]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"EMBEDDING_PORT": "many"}, "EMBEDDING_PORT has the unusable value 'many'"),
        ({"EMBEDDING_POOLING": "Median"}, "EMBEDDING_POOLING has the unusable value 'Median'"),
        ({"EMBEDDING_TLS_KEY_FILE": "/k"}, "must be given together"),
        ({}, "no model is given"),
    ],
)
def test_unusable_settings_are_named(environment: dict[str, str], words: str) -> None:
    model = {} if words == "no model is given" else {"EMBEDDING_MODEL": str(MINILM)}
    with server(environment=environment | model) as process:
        assert process.wait_for_exit() == 2
        assert words in process.lines[-1]
        assert process.lines[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("uvloop", "error: a defect of the server: ModuleNotFoundError: "),
        ("tokenizers", f"error: cannot load model {MINILM}: ModuleNotFoundError: "),
    ],
)
def test_a_broken_installation_is_a_defect(tmp_path: Path, missing: str, words: str) -> None:
    """On the thread that serves and on the one that loads: status 1, the traceback, and the reason last."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    arguments = ["--model", str(MINILM), "--cache-dir", str(tmp_path / "cache"), "--device", "Cpu"]
    with server(*arguments, environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert process.wait_for_exit() == 1
        assert process.lines[-1].startswith(words)
        assert missing in process.lines[-1]
        assert any(line.startswith("Traceback") for line in process.lines)


@pytest.mark.parametrize("value", ["1", "true"])
def test_show_config_prints_the_settings_and_ends(value: str) -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("EMBEDDING_", "NIM_"))}
    shown = subprocess.run(
        [sys.executable, "-m", "embedding_runtime", "serve", "--model", "acme/m"],
        env=environment | {"SHOW_CONFIG": value, "NIM_MAX_WAIT_MS": "3"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows["SETTING"] == ["VALUE", "FROM"]
    assert rows["model"] == ["acme/m", "--model"]
    assert rows["max_wait_milliseconds"] == ["3.0", "NIM_MAX_WAIT_MS"]
    assert shown.stderr == ""


def test_show_config_tells_unusable_settings() -> None:
    with server(environment={"SHOW_CONFIG": "1", "EMBEDDING_PORT": "many"}) as process:
        assert process.wait_for_exit() == 2
        assert process.lines == [
            next(line for line in process.lines if line.startswith("error: EMBEDDING_PORT has the unusable value"))
        ]


def test_another_fingerprint_is_never_served(cache: Path) -> None:
    wrong = f"sha256:{'0' * 64}"
    arguments = ["--model", str(MINILM), "--cache-dir", str(cache), "--expected-fingerprint", wrong]
    with server(*arguments) as process:
        assert process.wait_for_exit() == 4
        assert process.lines[-1].startswith(f"error: FingerprintMismatch: expected {wrong}")


def test_live_at_once_ready_when_proven_and_drained_on_sigterm(cache: Path) -> None:
    """From an open socket over progress and readiness to a drain that loses no request."""
    arguments = ["--model", str(MINILM), "--cache-dir", str(cache), "--served-model-name", "m"]
    with server(*arguments) as process, httpx.Client(timeout=60) as client:
        url = process.wait_for_port()
        early = client.get(f"{url}/v1/health/ready")
        assert early.status_code == 503
        assert early.json()["ready"] is False
        assert early.json()["message"]
        assert early.headers["retry-after"]
        assert client.get(f"{url}/v1/health/live").status_code == 200
        refused = client.post(f"{url}/v1/embeddings", json={"model": "m", "input": "a"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        process.wait_until_ready()
        # All different, as equal texts are computed once; enough to keep any CPU busy while the signal arrives.
        body = {"model": "m", "input": [f"{n} " + "word " * 200 for n in range(200)]}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(httpx.post, f"{url}/v1/embeddings", json=body, timeout=60)
            wait_until(lambda: 'embedding_queue_items{lane="bulk"} 0.0' not in client.get(f"{url}/v1/metrics").text)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get(f"{url}/v1/health/ready").status_code == 503, 5, "unready")
            late = client.post(f"{url}/v1/embeddings", json={"model": "m", "input": "a"})
            assert late.status_code == 200
            assert late.headers["connection"] == "close"
            assert running.result().status_code == 200
        assert process.wait_for_exit() == 0
