"""The clients people use, unchanged, against a real server."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.runtime.helpers import GOLDEN, ServerProcess

pytestmark = [
    pytest.mark.model,
    # Deprecations inside other people's packages are not ours to fix.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("default::UserWarning"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]
MODEL = "acme/minilm"
TEXTS = list(GOLDEN)


@pytest.fixture(autouse=True)
def quiet_imports() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def base(minilm_server: ServerProcess) -> str:
    return f"{minilm_server.url}/v1"


def assert_golden(vectors: Any) -> None:
    for vector, expected in zip(vectors, GOLDEN.values(), strict=True):
        np.testing.assert_allclose(vector[:4], expected, atol=1e-6)


def test_openai_asynchronously(base: str) -> None:
    async def scenario() -> None:
        async with openai.AsyncOpenAI(base_url=base, api_key="unused") as client:
            answers = await asyncio.gather(*(client.embeddings.create(model=MODEL, input=TEXTS) for _ in range(8)))
            for answer in answers:
                assert_golden(item.embedding for item in answer.data)

    asyncio.run(scenario())


def test_openai_errors_are_its_own_classes(base: str) -> None:
    with openai.OpenAI(base_url=base, api_key="unused", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="not found; available"):
            client.embeddings.create(model="nothing", input="a")
        with pytest.raises(openai.BadRequestError, match="exceeds maximum allowed token size 256"):
            client.embeddings.create(model=MODEL, input="word " * 300)
        answer = client.embeddings.create(
            model=MODEL, input="word " * 300, extra_body={"truncate": "END", "input_type": "passage"}
        )
        assert answer.usage.prompt_tokens == 256


def test_langchain_nvidia(base: str) -> None:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    client = NVIDIAEmbeddings(base_url=base, model=MODEL)
    assert MODEL in [model.id for model in client.available_models]
    assert_golden(client.embed_documents(TEXTS))
    assert_golden([client.embed_query(text) for text in TEXTS])
    assert len(client.embed_documents(["text"] * 120)) == 120
    with pytest.raises(Exception, match="exceeds maximum allowed token size 256"):
        client.embed_documents(["word " * 300])
    for truncate in ("START", "END"):
        cutting = NVIDIAEmbeddings(base_url=base, model=MODEL, truncate=truncate)
        assert len(cutting.embed_documents(["short", "word " * 300])) == 2


def test_langchain_nvidia_finds_the_only_model(base: str) -> None:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    assert NVIDIAEmbeddings(base_url=base).model == MODEL


def test_langchain_openai(base: str) -> None:
    from langchain_openai import OpenAIEmbeddings

    options: dict[str, Any] = {"base_url": base, "api_key": "unused", "model": MODEL}
    assert_golden(OpenAIEmbeddings(check_embedding_ctx_length=False, **options).embed_documents(TEXTS))


def test_langchain_openai_with_its_default_is_refused_readably(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default sends token arrays. The tables it would download are replaced by one token for each byte."""
    import tiktoken
    from langchain_openai import OpenAIEmbeddings

    ranks = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={})
    for name in ("encoding_for_model", "get_encoding"):
        monkeypatch.setattr(tiktoken, name, lambda _: encoding)
    client = OpenAIEmbeddings(base_url=base, api_key="unused", model=MODEL)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embed_documents(TEXTS)


def test_llama_index_nvidia(base: str) -> None:
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    client = NVIDIAEmbedding(base_url=base, model=MODEL, api_key="unused", truncate="END")
    assert_golden(client.get_text_embedding_batch(TEXTS))
    assert_golden([client.get_query_embedding(text) for text in TEXTS])
    assert_golden(asyncio.run(client.aget_text_embedding_batch(TEXTS)))


def test_litellm(base: str) -> None:
    import litellm

    answer = litellm.embedding(
        model=f"nvidia_nim/{MODEL}", input=TEXTS, api_base=base, api_key="unused", input_type="passage",
        encoding_format="float",
    )  # fmt: skip
    assert_golden(item["embedding"] for item in answer.data)


def test_what_nvidias_operator_asks(minilm_server: ServerProcess) -> None:
    """Probes within a second; a list whose single root names the model; metadata; metrics on the API port."""
    with httpx.Client(base_url=minilm_server.url, timeout=1) as client:
        assert client.get("/v1/health/ready").status_code == 200
        assert client.get("/v1/health/live").status_code == 200
        models = client.get("/v1/models").json()
        assert models["object"] == "list"
        assert [model["id"] for model in models["data"] if model["root"] == model["id"]] == [MODEL]
        info = client.get("/v1/metadata").json()["modelInfo"][0]
        assert info["shortName"].split(":")[0] == MODEL
        assert info["modelUrl"]
        assert client.get("/v1/metrics").headers["content-type"].startswith("text/plain")


def test_what_nv_ingest_asks(base: str, minilm_server: ServerProcess) -> None:
    """Readiness as JSON, metadata's version and short name, then batches of 100 with a modality for each."""
    with httpx.Client(timeout=30) as client:
        ready = client.get(f"{minilm_server.url}/v1/health/ready")
        assert ready.status_code == 200
        assert ready.json()["ready"] is True
        assert client.get(f"{base}/metadata").json()["version"]
    with openai.OpenAI(base_url=base, api_key="unused") as client_:
        answer = client_.embeddings.create(
            model=MODEL, input=["text"] * 100, encoding_format="float",
            extra_body={"input_type": "passage", "truncate": "END", "modality": ["text"] * 100},
        )  # fmt: skip
        assert len(answer.data) == 100
