"""More work than there is room for: refused at once with an honest time to come back, or answered, never lost."""

from __future__ import annotations

import concurrent.futures
import time

import httpx
import pytest
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.engine.policy import Limits
from embedding_runtime.engine.work import Lane

from tests.runtime.api.served import Served, served
from tests.runtime.helpers import total, wait_until


def post(it: Served, words: int, **more: object) -> httpx.Response:
    body = {"model": "letters", "input": ["a"] * words} | more
    return httpx.post(f"{it.url}/v1/embeddings", json=body, timeout=30)


def hold(it: Served, pool: concurrent.futures.Executor) -> concurrent.futures.Future[httpx.Response]:
    """A request in the model that does not end before the gate opens."""
    it.model.gate.clear()
    before = total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_batches_total")
    running = pool.submit(post, it, 1)
    wait_until(
        lambda: total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_batches_total") > before, 5, "a running batch"
    )
    return running


def test_a_full_queue_is_429_with_retry_after() -> None:
    with served(limits=Limits(64, 64, 100, 0.0)) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        post(it, 10)
        running = hold(it, pool)
        waiting = pool.submit(post, it, 90)
        wait_until(lambda: it.engine.queued_tokens(Lane.BULK) == 90, 5, "a queue")
        refused = post(it, 20)
        assert (refused.status_code, refused.json()["type"]) == (429, "overloaded_error")
        assert refused.json()["message"] == "the queue is full; try again later"
        assert int(refused.headers["retry-after"]) >= 1
        fits = pool.submit(post, it, 10)
        it.model.gate.set()
        assert [each.result().status_code for each in (running, waiting, fits)] == [200, 200, 200]
        text = httpx.get(f"{it.url}/v1/metrics").text
        assert 'embedding_rejected_total{reason="queue_full"} 1.0' in text


def test_a_request_larger_than_the_queue_is_answered_when_it_is_empty() -> None:
    with served(limits=Limits(64, 64, 100, 0.0)) as it:
        answer = post(it, 500)
        assert answer.status_code == 200
        assert len(answer.json()["data"]) == 500
        assert int(answer.headers["x-batch-tokens"]) <= 64


def test_waiting_too_long_is_503_with_retry_after() -> None:
    with served(api=ApiLimits(request_timeout=0.3)) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        running = hold(it, pool)
        began = time.monotonic()
        late = post(it, 3)
        assert (late.status_code, late.json()["type"]) == (503, "unavailable_error")
        assert late.json()["message"] == "the request waited too long for its turn; try again later"
        assert int(late.headers["retry-after"]) >= 1
        assert time.monotonic() - began < 5
        assert it.engine.queued_tokens(Lane.BULK) == 0
        it.model.gate.set()
        assert running.result().status_code == 503


def test_queries_overtake_bulk() -> None:
    with served(limits=Limits(8, 8, 10_000, 0.0)) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        running = hold(it, pool)
        bulk = pool.submit(post, it, 4000)
        wait_until(lambda: it.engine.queued_tokens(Lane.BULK) == 4000, 5, "a bulk queue")
        query = pool.submit(post, it, 1, input_type="query")
        wait_until(lambda: it.engine.queued_tokens(Lane.INTERACTIVE) > 0, 5, "a query")
        it.model.gate.set()
        assert query.result().status_code == 200
        assert not bulk.done()
        assert (running.result().status_code, bulk.result().status_code) == (200, 200)


def test_parameters_that_do_not_touch_the_model_share_a_batch() -> None:
    """Different dimensions, types and encodings are answered from one forward."""
    variants: list[dict[str, object]] = [
        {}, {"dimensions": 4}, {"embedding_type": "int8"}, {"embedding_type": "ubinary"}, {"encoding_format": "base64"},
    ]  # fmt: skip
    with served() as it, concurrent.futures.ThreadPoolExecutor() as pool:
        running = hold(it, pool)
        answers = [pool.submit(post, it, 2, **variant) for variant in variants]
        wait_until(lambda: it.engine.queued_items(Lane.BULK) == 10, 5, "all of them")
        before = total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_batches_total")
        it.model.gate.set()
        assert [answer.result().status_code for answer in (running, *answers)] == [200] * 6
        assert total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_batches_total") == before + 1
        assert {answer.result().headers["x-batch-tokens"] for answer in answers} == {"10"}


@pytest.mark.parametrize("path", ["health/ready", "health/live", "metrics", "models", "manifest", "metadata"])
def test_information_is_answered_while_a_batch_runs(path: str) -> None:
    with served() as it, concurrent.futures.ThreadPoolExecutor() as pool, httpx.Client(base_url=it.url) as client:
        running = hold(it, pool)
        client.get("/v1/version")
        times = []
        for _ in range(5):
            began = time.perf_counter()
            assert client.get(f"/v1/{path}").status_code == 200
            times.append(time.perf_counter() - began)
        assert min(times) < 0.1
        it.model.gate.set()
        assert running.result().status_code == 200


def long(it: Served, size: int = 20_000) -> httpx.Response:
    body = {"model": "letters", "input": "a" * size, "truncate": "END"}
    return httpx.post(f"{it.url}/v1/embeddings", json=body, timeout=30)


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_tokenising_for_too_long_is_503_and_ends(size: int) -> None:
    with served(api=ApiLimits(request_timeout=0.3)) as it:
        it.model.reading.clear()
        late = long(it, size)
        assert (late.status_code, late.json()["type"]) == (503, "unavailable_error")
        assert late.json()["message"] == "the request waited too long for its turn; try again later"
        assert int(late.headers["retry-after"]) >= 1
        assert it.model.preparing == 0
        assert 'embedding_rejected_total{reason="timeout"} 1.0' in httpx.get(f"{it.url}/v1/metrics").text
        it.model.reading.set()
        assert long(it, 5_000).status_code == 200


def test_the_time_to_tokenise_counts() -> None:
    """What tokenising took is no longer there for queueing."""
    with served(api=ApiLimits(request_timeout=1.5)) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        running = hold(it, pool)
        it.model.reading.clear()
        began = time.monotonic()
        late = pool.submit(long, it)
        wait_until(lambda: it.model.preparing == 1, 5, "tokenising")
        wait_until(lambda: time.monotonic() - began > 1, 5, "a second")
        it.model.reading.set()
        assert late.result().status_code == 503
        assert time.monotonic() - began < 2.4
        it.model.gate.set()
        running.result()


def test_large_requests_hold_up_neither_small_ones_nor_answers() -> None:
    with served() as it, concurrent.futures.ThreadPoolExecutor(20) as pool:
        it.model.reading.clear()
        large = [pool.submit(long, it, 2_000_000) for _ in range(6)]
        wait_until(lambda: it.model.preparing == 2, 5, "large requests")
        ordinary = [pool.submit(long, it) for _ in range(6)]
        wait_until(lambda: it.model.preparing == 6, 5, "ordinary requests beside them")
        it.model.reading.set()
        assert [each.result().status_code for each in (*large, *ordinary)] == [200] * 12
