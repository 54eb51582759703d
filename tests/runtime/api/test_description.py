"""The served description: it covers NIM's, it is true (schemathesis), and its page needs nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.runtime.api.served import Served, served

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, negative_data_rejection, unsupported_method,
]  # fmt: skip


@pytest.fixture(scope="module")
def it() -> Iterator[Served]:
    with served() as it:
        yield it


@pytest.fixture(scope="module")
def document(it: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{it.url}/openapi.json").raise_for_status().json()
    return found


@pytest.fixture(scope="module")
def api_schema(it: Served) -> Any:
    return schemathesis.openapi.from_url(f"{it.url}/openapi.json")


OPERATIONS = [
    ("/v1/embeddings", "POST"), ("/api/v3/inference/embeddings", "POST"), ("/v1/models", "GET"),
    ("/v1/models/{model_id}", "GET"), ("/v1/health/ready", "GET"), ("/v1/health/live", "GET"), ("/v1/metrics", "GET"),
    ("/v1/metadata", "GET"), ("/v1/manifest", "GET"), ("/v1/license", "GET"), ("/v1/version", "GET"),
]  # fmt: skip


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# Nothing can be got wrong in a GET.
CASES = [(*each, POSITIVE) for each in OPERATIONS] + [(*each, NEGATIVE) for each in OPERATIONS if each[1] == "POST"]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_every_answer_is_as_described(
    api_schema: Any, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    examples = 60 if method == "POST" else 5
    operation = api_schema[path][method]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    check()


def test_every_operation_is_tried(document: dict[str, Any]) -> None:
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == set(OPERATIONS)


def options(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in field.get("anyOf") or field.get("oneOf") or [field] if each.get("type") != "null"]


def test_it_covers_nims_description(document: dict[str, Any]) -> None:
    """Fields, enums and defaults as in NVIDIA's published description; at least its status codes."""
    operation = document["paths"]["/v1/embeddings"]["post"]
    assert operation["operationId"] == "createEmbedding"
    assert {"200", "400", "401", "429"} <= operation["responses"].keys()
    request = document["components"]["schemas"]["EmbeddingRequest"]
    fields = request["properties"]
    assert sorted(request["required"]) == ["input", "model"]
    assert {each["type"] for each in options(fields["input"])} == {"string", "array"}
    enums = {name: options(fields[name])[0].get("enum") for name in ("input_type", "encoding_format", "truncate")}
    assert enums == {
        "input_type": ["query", "passage"],
        "encoding_format": ["float", "base64"],
        "truncate": ["NONE", "START", "END"],
    }
    assert (fields["encoding_format"]["default"], fields["truncate"]["default"]) == ("float", "NONE")
    assert options(fields["dimensions"])[0]["type"] == "integer"
    assert options(fields["user"])[0]["type"] == "string"
    assert {"modality", "embedding_type"} <= fields.keys()
    response = document["components"]["schemas"]["EmbeddingResponse"]["properties"]
    assert {"object", "data", "model", "usage"} <= response.keys()
    assert document["components"]["securitySchemes"]["BearerAuth"] | {"description": ""} == {
        "type": "http",
        "scheme": "bearer",
        "description": "",
    }
    assert operation["security"] == [{"BearerAuth": []}, {}]


def test_the_page_fetches_nothing(it: Served) -> None:
    answer = httpx.get(f"{it.url}/docs")
    assert answer.status_code == 200
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", answer.text)
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for words in ("/v1/embeddings", "/v1/manifest", "encoding_format", "/api/v3/inference/embeddings"):
        assert words in answer.text


def test_nugens_route(it: Served) -> None:
    body = {"model": "letters", "input": ["a b", "c"], "dimensions": 4, "encoding_format": "bogus", "truncate": 7}
    answer = httpx.post(f"{it.url}/api/v3/inference/embeddings", json=body).raise_for_status().json()
    assert answer["id"].startswith("embed-")
    assert (answer["object"], answer["model"], answer["usage"]) == ("embedding", "acme/letters", {"total_tokens": 3})
    assert isinstance(answer["created"], float)
    assert [len(item["embedding"]) for item in answer["data"]] == [4, 4]
    wrong = httpx.post(f"{it.url}/api/v3/inference/embeddings", json=body | {"input": []})
    assert (wrong.status_code, wrong.json()["message"]) == (400, "input must not be empty")


def test_matryoshka_is_cut_then_normalised(it: Served) -> None:
    body = {"model": "letters", "input": "abcdefg"}
    full = httpx.post(f"{it.url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    cut = httpx.post(f"{it.url}/v1/embeddings", json=body | {"dimensions": 4}).json()["data"][0]["embedding"]
    length = sum(x * x for x in full[:4]) ** 0.5
    assert cut == pytest.approx([x / length for x in full[:4]], abs=1e-6)
    wrong = httpx.post(f"{it.url}/v1/embeddings", json=body | {"dimensions": 5})
    assert "supported: 4, 8" in wrong.json()["message"]


def test_the_suffix_wins_over_input_type(it: Served) -> None:
    """LlamaIndex's synchronous query call sends passage; the model's name says query."""
    used = [
        httpx.post(f"{it.url}/v1/embeddings", json={"model": model, "input": "a", "input_type": kind}).json()["usage"]
        for model, kind in (("letters-query", "passage"), ("letters-passage", "query"), ("letters", "query"))
    ]
    assert [usage["total_tokens"] for usage in used] == [2, 1, 2]
