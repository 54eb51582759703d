"""What is our fault: 500 without internals, for the request it concerns and for no other."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from embedding_runtime.engine.work import Lane

from tests.runtime.api.served import Served, served
from tests.runtime.helpers import total, wait_until


@pytest.fixture
def it() -> Iterator[Served]:
    with served() as it:
        it.model.broken, it.model.unreadable = "poison", "scrambled"
        yield it


def post(it: Served, *texts: str, request_id: str = "", path: str = "/v1/embeddings") -> httpx.Response:
    headers = {"x-request-id": request_id} if request_id else {}
    return httpx.post(f"{it.url}{path}", json={"model": "letters", "input": texts}, headers=headers, timeout=30)


def assert_told_without_internals(answer: httpx.Response, request_id: str, message: str, param: str | None) -> None:
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == request_id
    assert answer.json() == {
        "object": "error",
        "message": f"{message} (request {request_id})",
        "type": "internal_error",
        "param": param,
        "code": None,
        "request_id": request_id,
    }
    for internal in ("secret", "RuntimeError", "Traceback", "poison", "scrambled", ".py"):
        assert internal not in answer.text


def test_an_input_that_breaks_the_model_costs_its_request_alone(it: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Five requests in one batch, one of them with a broken input: the four others get their vectors."""
    texts = [["a b", "c"], ["d", "poison pill", "e"], ["f"], ["g h i"], ["j", "k"]]
    expected = [post(it, *each).json() for each in texts if "poison pill" not in each]
    metrics = f"{it.url}/v1/metrics"
    with concurrent.futures.ThreadPoolExecutor() as pool, caplog.at_level(logging.ERROR, "embedding_runtime"):
        it.model.gate.clear()
        before = total(httpx.get(metrics).text, "embedding_batches_total")
        running = pool.submit(post, it, "first")
        wait_until(lambda: total(httpx.get(metrics).text, "embedding_batches_total") > before, 5, "a running batch")
        answers = [pool.submit(post, it, *each, request_id=f"id-{n}") for n, each in enumerate(texts)]
        queued = sum(map(len, texts))
        wait_until(lambda: sum(it.engine.queued_items(lane) for lane in Lane) == queued, 5, "all of them in the queue")
        it.model.gate.set()
        found = [answer.result() for answer in answers]
        assert running.result().status_code == 200
    assert total(httpx.get(metrics).text, "embedding_batches_total") == before + 2
    assert [answer.status_code for answer in found] == [200, 500, 200, 200, 200]
    assert_told_without_internals(found.pop(1), "id-1", "the model failed on input[1]", "input")
    for answer, alone in zip(found, expected, strict=True):
        vectors = [[item["embedding"] for item in body["data"]] for body in (answer.json(), alone)]
        np.testing.assert_array_equal(*vectors)
        assert answer.json()["usage"] == alone["usage"]
    # Whoever runs the server learns why.
    failed = next(record for record in caplog.records if "the model failed on input[1]" in record.getMessage())
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "the model's secret"
    assert httpx.get(f"{it.url}/v1/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v3/inference/embeddings"])
def test_a_defect_of_ours_says_nothing_and_leaves_nothing_behind(
    it: Served, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_requests_total")
    with caplog.at_level(logging.ERROR, "embedding_runtime"):
        answer = post(it, "scrambled eggs", request_id="mine", path=path)
    assert_told_without_internals(answer, "mine", "internal error", None)
    wait_until(
        lambda: any(entry.exc_info and str(entry.exc_info[1]) == "the tokenizer's secret" for entry in caplog.records),
        5,
        "the cause in the log",
    )
    assert post(it, "a b", path=path).status_code == 200
    wait_until(lambda: not it.server.server_state.tasks, 5, "no request in progress")
    assert total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_requests_total") >= before + 2
    failed = 'embedding_requests_total{route="' + path + '",status="500"} 1.0'
    assert failed in httpx.get(f"{it.url}/v1/metrics").text


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        ({"content-type": "application/json; charset=utf-8"}, "utf-8", 200, ""),
        ({"content-type": 'application/json;charset="UTF-8"; x=y'}, "utf-8", 200, ""),
        ({"content-type": "application/json; charset=utf8"}, "utf-8", 200, ""),
        ({"content-type": "application/vnd.api+json"}, "utf-8", 200, ""),
        ({"content-type": ""}, "utf-8", 200, ""),
        ({"content-encoding": "identity"}, "utf-8", 200, ""),
        ({"content-type": "application/json; charset=iso-8859-1"}, "latin-1", 415, "the body must be UTF-8"),
        ({"content-type": "application/json; charset=not-utf-8"}, "utf-8", 415, "the body must be UTF-8"),
        ({"content-type": "application/json; charset=utf-16"}, "utf-16", 400, "the body must be UTF-8"),
        ({"content-type": "application/json; charset=UTF-16LE"}, "utf-16-le", 400, "the body must be UTF-8"),
        ({"content-type": "application/json"}, "utf-16", 400, "the body is not valid JSON"),
        ({"content-type": "application/json"}, "utf-16-le", 400, "the body is not valid JSON"),
        ({"content-type": "application/json"}, "latin-1", 400, "the body is not valid JSON"),
        ({"content-type": "text/plain"}, "utf-8", 415, "the content type must be application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, "utf-8", 415, "must be application/json"),
        ({"content-encoding": "gzip"}, "utf-8", 415, "compressed bodies are not supported; send the JSON as it is"),
        ({"content-encoding": "GZIP, br"}, "utf-8", 415, "compressed bodies are not supported"),
        ({"content-encoding": "deflate"}, "utf-8", 415, "compressed bodies are not supported"),
    ],
)
def test_media_types_charsets_and_encodings(
    it: Served, headers: dict[str, str], body: str, status: int, message: str
) -> None:
    content = '{"model": "letters", "input": "caf\u00e9"}'.encode(body)
    answer = httpx.post(f"{it.url}/v1/embeddings", content=content, headers=headers)
    assert answer.status_code == status
    if status != 200:
        error = answer.json()
        assert (error["object"], error["type"]) == ("error", "invalid_request_error")
        assert message in error["message"]
        assert error["request_id"] == answer.headers["x-request-id"]


def test_a_compressed_body_is_refused_before_the_model_is_looked_at(it: Served) -> None:
    """The order of checks: content type, then JSON, then the model."""
    for headers, content, status in (
        ({"content-type": "text/plain"}, b"{", 415),
        ({"content-encoding": "gzip"}, b'{"model": "wrong", "input": "a"}', 415),
        ({}, b'{"model": "wrong", "input": ', 400),
        ({}, b'{"model": "wrong", "input": []}', 400),
        ({}, b'{"model": "wrong", "input": [""]}', 404),
    ):
        assert httpx.post(f"{it.url}/v1/embeddings", content=content, headers=headers).status_code == status
