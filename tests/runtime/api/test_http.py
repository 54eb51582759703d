"""The HTTP contract over a real socket, with the real model behind it."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import socket

import httpx
import numpy as np
import openai
import pytest

from tests.runtime.helpers import GOLDEN, ServerProcess, samples, total

pytestmark = pytest.mark.model
MODEL = "acme/minilm"


def embed(http: httpx.Client, **body: object) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": "This is an example sentence"} | body)


def test_published_vectors(http: httpx.Client) -> None:
    answer = embed(http, input=list(GOLDEN)).raise_for_status().json()
    assert answer["object"] == "list"
    assert answer["model"] == MODEL
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    for item, expected in zip(answer["data"], GOLDEN.values(), strict=True):
        np.testing.assert_allclose(item["embedding"][:4], expected, atol=1e-6)
        assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-5)
    assert answer["usage"] == {"prompt_tokens": 15, "total_tokens": 15}


@pytest.mark.parametrize("kind", ["float", "int8", "uint8", "binary", "ubinary"])
def test_base64_holds_the_same_values(http: httpx.Client, kind: str) -> None:
    dtype = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}[kind]
    plain = embed(http, embedding_type=kind).json()["data"][0]["embedding"]
    encoded = embed(http, embedding_type=kind, encoding_format="base64").json()["data"][0]["embedding"]
    decoded = np.frombuffer(base64.b64decode(encoded, validate=True), dtype)
    assert len(decoded) == (48 if "binary" in kind else 384)
    np.testing.assert_array_equal(np.array(plain, dtype), decoded)


@pytest.mark.parametrize("name", [MODEL, "minilm", f"{MODEL}-query", "minilm-passage"])
def test_names_and_suffixes(http: httpx.Client, name: str) -> None:
    answer = embed(http, model=name)
    assert answer.status_code == 200
    assert answer.json()["model"] == MODEL


def test_null_and_unknown_fields(http: httpx.Client) -> None:
    optional = ("input_type", "modality", "embedding_type", "encoding_format", "dimensions", "truncate", "user")
    plain = embed(http).json()
    assert embed(http, **dict.fromkeys(optional)).json() == plain
    assert embed(http, extra={"a": [1]}, dimensions=384, modality=["text"], user="u").json() == plain


def test_openai_client(minilm_server: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{minilm_server.url}/v1", api_key="unused") as client:
        assert [model.id for model in client.models.list()] == [MODEL, "minilm"]
        for options in ({}, {"encoding_format": "float"}):
            answer = client.embeddings.create(model=MODEL, input=list(GOLDEN), **options)  # type: ignore[arg-type]
            for item, expected in zip(answer.data, GOLDEN.values(), strict=True):
                np.testing.assert_allclose(item.embedding[:4], expected, atol=1e-6)


def test_concurrent_requests_share_forwards(http: httpx.Client) -> None:
    texts = [f"sentence number {n}" for n in range(64)]
    alone = [embed(http, input=text).json()["data"][0]["embedding"] for text in texts[:4]]
    before = http.get("/v1/metrics").text
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: embed(http, input=text).json(), texts))
    after = http.get("/v1/metrics").text
    batches = total(after, "embedding_batches_total") - total(before, "embedding_batches_total")
    assert batches < len(texts) / 2
    for answer, expected in zip(answers, alone, strict=False):
        np.testing.assert_allclose(answer["data"][0]["embedding"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": []}, 400, "input must not be empty"),
        ({"input": ""}, 400, "input[0] must not be blank or empty"),
        ({"input": ["a", " \t\n\u2003"]}, 400, "input[1] must not be blank or empty"),
        ({"model": "wrong-model"}, 404, f"model 'wrong-model' not found; available: '{MODEL}', 'minilm'"),
        ({"modality": "bogus"}, 400, "modality must be one of 'text', 'image', 'text_image'; got 'bogus'"),
        ({"modality": "image"}, 400, f"model '{MODEL}' does not support modality 'image'; supported: 'text'"),
        ({"encoding_format": "bad"}, 400, "encoding_format must be one of 'float', 'base64'; got 'bad'"),
        ({"embedding_type": "x"}, 400, "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'"),
        ({"input_type": "document"}, 400, "input_type must be one of 'query', 'passage'; got 'document'"),
        ({"truncate": "end"}, 400, "truncate must be one of 'NONE', 'START', 'END'; got 'end'"),
        ({"input": "word " * 400}, 400, "Input length 402 exceeds maximum allowed token size 256 (input[0])"),
        ({"dimensions": 128}, 400, "dimensions 128 is not supported by this model; supported: 384"),
        ({"dimensions": 384.0}, 400, "dimensions must be an integer"),
        ({"dimensions": 384, "embedding_type": "int8"}, 400, "dimensions cannot be combined"),
        ({"input": [[101, 2023]]}, 400, "check_embedding_ctx_length=False"),
        ({"input": [101, 2023]}, 400, "check_embedding_ctx_length=False"),
        ({"input": {"a": 1}}, 400, "input must be a string or an array of strings"),
        ({"model": 7}, 400, "model must be a string"),
    ],
)
def test_errors(http: httpx.Client, body: dict[str, object], status: int, message: str) -> None:
    answer = embed(http, **body)
    assert answer.status_code == status
    error = answer.json()
    assert error["object"] == "error"
    assert message in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"model": "acme/minilm", "input": NaN}', {}, 400),
        (b'{"input": "a"}', {}, 400),
        (b"\xff\xfe{\x00", {}, 400),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
    ],
)
def test_bodies_that_are_no_request(http: httpx.Client, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == status
    assert answer.json()["object"] == "error"


def test_paths_and_methods(http: httpx.Client) -> None:
    for path in ("/nowhere", "/v1/embeddings/", "/"):
        assert http.post(path, json={}).status_code == 404
    wrong = http.get("/v1/embeddings")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["object"]) == (405, "POST", "error")


def test_models(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [(model["id"], model["root"], model["parent"]) for model in listed["data"]] == [
        (MODEL, MODEL, None),
        ("minilm", MODEL, None),
    ]
    assert http.get(f"/v1/models/{MODEL}").json() == listed["data"][0]
    assert http.get(f"/v1/models/{MODEL}-query").status_code == 404


def test_information(http: httpx.Client) -> None:
    assert http.get("/v1/health/ready").json() == {"object": "health.response", "message": "ready", "ready": True}
    assert http.get("/v1/health/live").json() == {"object": "health.response", "message": "live", "live": True}
    manifest = http.get("/v1/manifest").json()
    assert manifest["model"]["id"] == MODEL
    assert manifest["model"]["dimensions"] == 384
    assert manifest["model"]["supported_dimensions"] == [384]
    assert manifest["model"]["prompts"] == {}
    assert manifest["model"]["fingerprint"].startswith("sha256:")
    metadata = http.get("/v1/metadata").json()
    assert metadata["modelInfo"][0]["shortName"].split(":")[0] == MODEL
    assert metadata["model"]["fingerprint"] == manifest["model"]["fingerprint"]
    license_ = http.get("/v1/license").json()
    assert license_["sha"] == hashlib.sha1(license_["content"].encode()).hexdigest()  # noqa: S324
    assert (license_["size"], license_["type"]) == (len(license_["content"]), "file")
    assert http.get("/v1/version").json().keys() == {"release", "api"}


def test_metrics_agree_with_usage(http: httpx.Client) -> None:
    before = total(http.get("/v1/metrics").text, "embedding_tokens_total")
    used = sum(embed(http, input_type=kind).json()["usage"]["total_tokens"] for kind in ("query", "passage", None))
    text = http.get("/v1/metrics").text
    assert total(text, "embedding_tokens_total") - before == used
    found = samples(text)
    assert found[("embedding_queue_tokens", (("lane", "bulk"),))] == 0
    assert found[("embedding_utilization", ())] >= 0
    assert any(name == "embedding_model_info" and value == 1 for (name, _), value in found.items())
    assert (
        "openmetrics"
        in http.get("/v1/metrics", headers={"accept": "application/openmetrics-text"}).headers["content-type"]
    )


def test_headers(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"model": MODEL, "input": "a"}, headers={"x-request-id": "my.id-1"})
    assert answer.headers["x-request-id"] == "my.id-1"
    assert float(answer.headers["x-queue-time-ms"]) >= 0
    assert float(answer.headers["x-inference-time-ms"]) > 0
    assert int(answer.headers["x-batch-tokens"]) >= 3
    assert http.get("/v1/version", headers={"x-request-id": "not allowed!"}).headers["x-request-id"] != "not allowed!"


def test_a_client_that_hangs_up_leaves_no_work_behind(minilm_server: ServerProcess, http: httpx.Client) -> None:
    # Each different: identical texts are computed once.
    texts = [f"{number} " + "word " * 200 for number in range(300)]
    body = json.dumps({"model": "minilm", "input": texts}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    before = total(http.get("/v1/metrics").text, "embedding_cancelled_total")
    port = int(minilm_server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + body)
        while total(http.get("/v1/metrics").text, "embedding_queue_items") == 0:
            pass
    while total(http.get("/v1/metrics").text, "embedding_queue_items"):
        pass
    assert total(http.get("/v1/metrics").text, "embedding_cancelled_total") > before
