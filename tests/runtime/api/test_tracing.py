"""Traces arrive at a real OTLP/HTTP receiver, below the caller's span, and hold no text."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest
from embedding_runtime.tracing import open_tracer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.runtime.api.served import served
from tests.runtime.helpers import wait_until

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(http.server.ThreadingHTTPServer):
    """Receives OTLP over HTTP as a collector does."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> dict[str, Span]:
        return {
            span.name: span
            for _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join(5)


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


def test_a_request_is_a_span_with_its_stages_below_that_of_the_caller(collector: Collector) -> None:
    tracer = open_tracer(collector.url, "acme/letters")
    with served(tracer=tracer) as it:
        answer = httpx.post(
            f"{it.url}/v1/embeddings",
            json={"model": "acme/letters", "input": ["sesquipedalian words", "b"], "input_type": "query"},
            headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"},
        )
        assert answer.status_code == 200
        assert httpx.get(f"{it.url}/v1/health/ready").status_code == 200
        wait_until(lambda: httpx.post(f"{it.url}/v1/embeddings", json={"model": "no"}).status_code == 400, 5)
    tracer.close()
    wait_until(lambda: len(collector.spans()) == 5, 10, "spans")
    assert {path for path, _ in collector.requests} == {"/v1/traces"}
    resources = [resource for _, request in collector.requests for resource in request.resource_spans]
    described = {each.key: each.value.string_value for each in resources[0].resource.attributes}
    assert (described["service.name"], described["embedding.model"]) == ("embedding-runtime", "acme/letters")

    exported = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    root = next(span for span in exported if span.trace_id.hex() == TRACE_ID and span.name == "POST /v1/embeddings")
    assert root.parent_span_id.hex() == PARENT_ID
    assert root.kind == Span.SPAN_KIND_SERVER
    found = attributes(root)
    assert found["http.response.status_code"] == 200
    assert (found["embedding.inputs"], found["embedding.input_type"]) == (2, "query")
    stages = [span for span in exported if span.parent_span_id == root.span_id]
    assert [span.name for span in stages] == ["tokenise", "queue", "forward", "encode"]
    for earlier, later in zip([root, *stages], stages, strict=False):
        assert earlier.start_time_unix_nano <= later.start_time_unix_nano
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano for span in stages)
    refused = next(span for span in exported if span.trace_id.hex() != TRACE_ID)
    assert attributes(refused)["http.response.status_code"] == 400
    assert not any(b"sesquipedalian" in body for body in collector.bodies)


def test_a_collector_that_is_gone_costs_no_answer() -> None:
    tracer = open_tracer("http://127.0.0.1:1", "acme/letters")
    with served(tracer=tracer) as it:
        answer = httpx.post(f"{it.url}/v1/embeddings", json={"model": "acme/letters", "input": "a"})
        assert answer.status_code == 200
    tracer.close()


def test_no_exporter_is_imported_without_an_endpoint() -> None:
    code = (
        "import sys, embedding_runtime.service, embedding_runtime.api.app;"
        # FastAPI itself imports the programming interface, which does nothing by itself.
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
