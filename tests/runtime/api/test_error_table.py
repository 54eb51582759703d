"""The contract's table of errors, row by row: status, exact words, type, field and headers, on the routes it is for.

Rows with tests of their own: keys (test_keys.py), overload (test_overload.py), sizes of bodies (test_abuse.py), drain
(test_listening.py), media types and defects (test_failures.py), token limits of a real tokenizer (test_http.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from embedding_runtime.api.embeddings import ApiLimits

from tests.runtime.api.served import Served, served

NIM, NUGEN = "/v1/embeddings", "/api/v3/inference/embeddings"
LANGCHAIN = (
    "input[0] is not a string: token arrays are not supported, send text. "
    "With LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False"
)
TOO_LONG = (
    "Input length 20 exceeds maximum allowed token size 16 (input[1]); "
    'shorten it, or let the server cut it with "truncate": "END" or "START"'
)
WITH_IMAGE = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def it() -> Iterator[Served]:
    with served(api=ApiLimits(body_bytes=100_000)) as it:
        yield it


def assert_error(
    answer: httpx.Response, status: int, message: str, kind: str, param: str | None = None, code: str | None = None
) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "object": "error",
        "message": message,
        "type": kind,
        "param": param,
        "code": code,
        "request_id": answer.headers["x-request-id"],
    }


EVERY_ROUTE: list[tuple[dict[str, Any], int, str, str | None, str | None]] = [
    ({"input": []}, 400, "input must not be empty", "input", None),
    ({"input": ""}, 400, "input[0] must not be blank or empty", "input", None),
    ({"input": ["a", "\u3000\t"]}, 400, "input[1] must not be blank or empty", "input", None),
    ({"input": None}, 400, "input must be a string or an array of strings", "input", None),
    ({"input": 7}, 400, "input must be a string or an array of strings", "input", None),
    ({"input": {"text": "a"}}, 400, "input must be a string or an array of strings", "input", None),
    ({"input": ["a", None]}, 400, "input[1] must be a string", "input", None),
    ({"input": ["a"] * 8193}, 400, "input has 8193 entries; at most 8192 are allowed", "input", None),
    ({"input": [101, 102]}, 400, LANGCHAIN, "input", None),
    ({"input": [[101, 102]]}, 400, LANGCHAIN, "input", None),
    ({"input": ["a", 1]}, 400, LANGCHAIN.replace("[0]", "[1]"), "input", None),
    ({"input": ["a", [1, 2]]}, 400, LANGCHAIN.replace("[0]", "[1]"), "input", None),
    ({"input": [True]}, 400, "input[0] must be a string", "input", None),
    ({"input": [[False, True]]}, 400, "input[0] must be a string", "input", None),
    ({"input": ["a", ["b"]]}, 400, "input[1] must be a string", "input", None),
    ({"input": [1.5]}, 400, "input[0] must be a string", "input", None),
    ({"input": ["a", "b " * 20]}, 400, TOO_LONG, "input", "context_length_exceeded"),
    ({"model": None}, 400, "model must be a string", "model", None),
    ({"model": ["letters"]}, 400, "model must be a string", "model", None),
    ({"model": "wrong-model"}, 404, "model 'wrong-model' not found; available: 'acme/letters', 'letters'", "model",
     "model_not_found"),
    ({"model": "x" * 100}, 404, f"model '{'x' * 63}…' not found; available: 'acme/letters', 'letters'", "model",
     "model_not_found"),
    ({"dimensions": 5}, 400, "dimensions 5 is not supported by this model; supported: 4, 8", "dimensions", None),
    ({"dimensions": 0}, 400, "dimensions 0 is not supported by this model; supported: 4, 8", "dimensions", None),
    ({"dimensions": -4}, 400, "dimensions -4 is not supported by this model; supported: 4, 8", "dimensions", None),
    ({"dimensions": 2**63 - 1}, 400, f"dimensions {2**63 - 1} is not supported by this model; supported: 4, 8",
     "dimensions", None),
    ({"dimensions": 10**30}, 400, "dimensions 1e+30 is not supported by this model; supported: 4, 8", "dimensions",
     None),
    ({"dimensions": -(10**30)}, 400, "dimensions -1e+30 is not supported by this model; supported: 4, 8", "dimensions",
     None),
    ({"dimensions": "4"}, 400, "dimensions must be an integer", "dimensions", None),
    ({"dimensions": 4.0}, 400, "dimensions must be an integer", "dimensions", None),
    ({"dimensions": True}, 400, "dimensions must be an integer", "dimensions", None),
]  # fmt: skip
OF_NIM: list[tuple[dict[str, Any], str, str]] = [
    ({"modality": "bogus"}, "modality must be one of 'text', 'image', 'text_image'; got 'bogus'", "modality"),
    ({"modality": ["text", "Text"]}, "modality must be one of 'text', 'image', 'text_image'; got 'Text'", "modality"),
    ({"modality": []}, "modality must not be empty", "modality"),
    ({"modality": ["text", "text"]},
     "modality has 2 entries but input has 1; give one for all inputs or one for each", "modality"),
    ({"modality": "image"}, "model 'acme/letters' does not support modality 'image'; supported: 'text'", "modality"),
    ({"modality": "text_image", "input": WITH_IMAGE},
     "model 'acme/letters' does not support modality 'text_image'; supported: 'text'", "modality"),
    ({"encoding_format": "bad"}, "encoding_format must be one of 'float', 'base64'; got 'bad'", "encoding_format"),
    ({"encoding_format": ""}, "encoding_format must be one of 'float', 'base64'; got ''", "encoding_format"),
    ({"encoding_format": 1}, "encoding_format must be one of 'float', 'base64'; got '1'", "encoding_format"),
    ({"embedding_type": "x"}, "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'", "embedding_type"),
    ({"embedding_type": 8}, "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'", "embedding_type"),
    ({"input_type": "document"}, "input_type must be one of 'query', 'passage'; got 'document'", "input_type"),
    ({"input_type": "Query"}, "input_type must be one of 'query', 'passage'; got 'Query'", "input_type"),
    ({"truncate": "end"}, "truncate must be one of 'NONE', 'START', 'END'; got 'end'", "truncate"),
    ({"truncate": "z" * 99}, f"truncate must be one of 'NONE', 'START', 'END'; got '{'z' * 63}…'", "truncate"),
    ({"user": 7}, "user must be a string", "user"),
    *(
        ({"dimensions": size, "embedding_type": kind},
         f"dimensions cannot be combined with embedding_type '{kind}'; leave one of them out", "dimensions")
        for size in (4, 8) for kind in ("int8", "uint8", "binary", "ubinary")
    ),
]  # fmt: skip


@pytest.mark.parametrize("path", [NIM, NUGEN])
@pytest.mark.parametrize(("fields", "status", "message", "param", "code"), EVERY_ROUTE)
def test_on_both_routes(
    it: Served, path: str, fields: dict[str, Any], status: int, message: str, param: str | None, code: str | None
) -> None:
    answer = httpx.post(it.url + path, json={"model": "letters", "input": "a"} | fields)
    assert_error(answer, status, message, "not_found_error" if status == 404 else "invalid_request_error", param, code)


@pytest.mark.parametrize(("fields", "message", "param"), OF_NIM)
def test_on_nims_route(it: Served, fields: dict[str, Any], message: str, param: str) -> None:
    body = {"model": "letters", "input": "a"} | fields
    assert_error(httpx.post(it.url + NIM, json=body), 400, message, "invalid_request_error", param)
    if param != "dimensions":
        # Nugen's API does not have these fields, and unknown ones are ignored.
        assert httpx.post(it.url + NUGEN, json=body).status_code == 200


@pytest.mark.parametrize("path", [NIM, NUGEN])
@pytest.mark.parametrize(
    ("content", "message", "param"),
    [
        ('{"model": "letters"}', "input is required", "input"),
        ('{"input": "a"}', "model is required", "model"),
        ("[]", "the body must be a JSON object", None),
        ('"a"', "the body must be a JSON object", None),
        ("null", "the body must be a JSON object", None),
    ],
)
def test_what_is_no_request_object(it: Served, path: str, content: str, message: str, param: str | None) -> None:
    code = None if param else "invalid_json"
    answer = httpx.post(it.url + path, content=content)
    assert_error(answer, 400, message, "invalid_request_error", param, code)


@pytest.mark.parametrize("content", ["{", '{"model": "letters", "input": "a"} x', '{"model": "letters", "input": NaN}'])
def test_bad_json_says_where(it: Served, content: str) -> None:
    answer = httpx.post(it.url + NIM, content=content)
    message = answer.json()["message"]
    assert message.startswith("the body is not valid JSON: ")
    assert "(line 1, column " in message
    assert_error(answer, 400, message, "invalid_request_error", None, "invalid_json")


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body(it: Served, declared: bool) -> None:
    content = b" " * 100_001
    answer = httpx.post(it.url + NIM, content=content if declared else iter([content]))
    message = "the body is larger than 100000 bytes; send fewer inputs per request"
    assert_error(answer, 413, message, "invalid_request_error")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", NIM, "POST"),
        ("PUT", NUGEN, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/letters", "GET"),
        ("POST", "/v1/health/ready", "GET"),
        ("PATCH", "/v1/manifest", "GET"),
    ],
)
def test_wrong_methods(it: Served, method: str, path: str, allow: str) -> None:
    answer = httpx.request(method, it.url + path)
    assert_error(answer, 405, "this path does not have that method", "invalid_request_error")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1/embeddings/", "/v1", "/v1//embeddings", "/V1/embeddings"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_wrong_paths(it: Served, method: str, path: str) -> None:
    answer = httpx.request(method, it.url + path)
    assert_error(answer, 404, "no such path; see /docs for what there is", "not_found_error")


@pytest.mark.parametrize("name", ["nothing", "letters-query", "acme/letters-passage", "acme"])
def test_models_that_are_not_listed(it: Served, name: str) -> None:
    answer = httpx.get(f"{it.url}/v1/models/{name}")
    message = f"model '{name}' not found; available: 'acme/letters', 'letters'"
    assert_error(answer, 404, message, "not_found_error", "model", "model_not_found")


def test_before_the_model_is_ready(it: Served) -> None:
    engine, it.state.engine = it.state.engine, None
    it.state.report("loading acme/letters: 40 %")
    phase, it.state.phase = it.state.phase, type(it.state.phase).LOADING
    try:
        for path in (NIM, NUGEN):
            answer = httpx.post(it.url + path, json={"model": "letters", "input": "a"})
            message = "the model is not ready: loading acme/letters: 40 %"
            assert_error(answer, 503, message, "unavailable_error")
            assert int(answer.headers["retry-after"]) >= 1
        ready = httpx.get(f"{it.url}/v1/health/ready")
        assert ready.json() == {"object": "health.response", "message": "loading acme/letters: 40 %", "ready": False}
        assert (ready.status_code, int(ready.headers["retry-after"]) >= 1) == (503, True)
        assert httpx.get(f"{it.url}/v1/health/live").status_code == 200
    finally:
        it.state.engine, it.state.phase = engine, phase
