"""What Pods answer is not trusted: wrong, huge, compressed, never-ending, and not at all."""

from __future__ import annotations

import asyncio
import gzip

import orjson
import pytest
from aiohttp import web
from embedding_operator.observe.endpoints import MAX_BODY_BYTES, EndpointReader, parse_metrics
from embedding_operator.observe.snapshot import Reading

from tests.operator.build import NOW, manifest

READY = orjson.dumps({"object": "health.response", "message": "ready", "ready": True})
METRICS = b'embedding_utilization 0.5\nembedding_tokens_total{input_type="query"} 10\nembedding_queue_tokens 3\n'
Answers = dict[str, tuple[int, bytes, dict[str, str]]]


def read(answers: Answers) -> Reading:
    """The reading of a server that gives these answers, by path below /v1."""

    async def answer(request: web.Request) -> web.Response:
        status, body, headers = answers[request.path.removeprefix("/v1/")]
        return web.Response(status=status, body=body, headers=headers)

    async def main() -> Reading:
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        reader = EndpointReader(lambda: NOW, timeout=1.0)
        try:
            return await reader.read("127.0.0.1", port=port, tls=False)
        finally:
            await reader.aclose()
            await runner.cleanup()

    return asyncio.run(main())


def healthy(**changes: tuple[int, bytes, dict[str, str]]) -> Answers:
    answers: Answers = {
        "health/ready": (200, READY, {}),
        "manifest": (200, orjson.dumps(manifest()), {}),
        "metrics": (200, METRICS, {}),
    }
    return {**answers, **{name.replace("_", "/"): value for name, value in changes.items()}}


def test_a_healthy_pod_is_read() -> None:
    reading = read(healthy())
    assert (reading.ready, reading.error) == (True, None)
    assert reading.manifest is not None
    assert reading.metrics is not None
    assert (reading.metrics.utilization, reading.metrics.tokens_total, reading.metrics.queued_tokens) == (0.5, 10, 3)


def test_a_loading_pod_tells_its_progress() -> None:
    body = orjson.dumps({"object": "health.response", "message": "downloading 40 %", "ready": False})
    reading = read(healthy(health_ready=(503, body, {})))
    assert (reading.ready, reading.message) == (False, "downloading 40 %")


def test_another_runtime_without_manifest_and_our_metrics_is_ready_all_the_same() -> None:
    reading = read(healthy(manifest=(404, b"", {}), metrics=(200, b"up 1\n", {})))
    assert (reading.ready, reading.manifest, reading.metrics, reading.error) == (True, None, None, None)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (healthy(health_ready=(500, b"", {})), "answered 500"),
        (healthy(metrics=(200, b"#" * (MAX_BODY_BYTES + 1), {})), "more than"),
        (healthy(metrics=(200, gzip.compress(b"#" * 10_000_000), {"content-encoding": "gzip"})), "content-encoding"),
        (healthy(manifest=(200, orjson.dumps(manifest(dimensions="many")), {})), "model.dimensions"),
        (healthy(manifest=(200, orjson.dumps(manifest(dimensions="384")), {})), "model.dimensions"),
        (healthy(manifest=(200, orjson.dumps(manifest(dimensions=2**60)), {})), "model.dimensions"),
        (healthy(manifest=(200, orjson.dumps(manifest(id="x" * 1000)), {})), "model.id"),
        (healthy(manifest=(200, orjson.dumps(manifest(modalities=["x" * 1000])), {})), "model.modalities"),
    ],
)
def test_what_is_not_as_agreed_is_an_error_and_no_exception(answers: Answers, words: str) -> None:
    reading = read(answers)
    assert reading.error is not None
    assert words in reading.error


@pytest.mark.parametrize("runtime", [None, [], "0.1.0", {"version": 1}, {"version": {"a": 1}}, {"version": "x" * 1000}])
def test_a_version_that_is_none_is_left_out(runtime: object) -> None:
    reading = read(healthy(manifest=(200, orjson.dumps({**manifest(), "runtime": runtime}), {})))
    assert reading.error is None
    assert reading.manifest is not None
    assert reading.manifest["runtime"] == {"version": None}


@pytest.mark.parametrize(
    "text",
    [
        "embedding_utilization NaN",
        "embedding_utilization +Inf",
        "embedding_utilization -1",
        "embedding_utilization 1e300",
        "embedding_utilization 1\nembedding_tokens_total NaN",
        'a_1otal{x="y", ="q"} 1.0 1=3#',
        "no metrics at all {",
        "",
    ],
)
def test_figures_that_are_none_are_left_out(text: str) -> None:
    assert parse_metrics(text, NOW) is None


def test_nobody_listening_is_an_error() -> None:
    async def main() -> Reading:
        reader = EndpointReader(lambda: NOW, timeout=1.0)
        try:
            return await reader.read("127.0.0.1", port=1, tls=False)
        finally:
            await reader.aclose()

    assert "did not answer" in (asyncio.run(main()).error or "")
