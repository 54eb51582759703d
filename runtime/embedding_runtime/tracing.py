"""OpenTelemetry traces: one span per request with its stages below it, sent to a collector over OTLP/HTTP.

Off unless an endpoint is given; OpenTelemetry's exporter is not imported until then. Spans hold sizes, names of routes,
clients and input types: never an input's text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedding_runtime import __version__
from embedding_runtime.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_KEY = "embedding_runtime.trace"
_EXPORT_SECONDS = 5.0


@dataclass(slots=True)
class RequestTrace:
    """What is noted while a request is served. Times are those of `time.perf_counter`."""

    began: float = field(default_factory=time.perf_counter)
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    attributes: dict[str, str | int] = field(default_factory=dict)


def stage(scope: Mapping[str, Any], name: str, began: float, ended: float) -> None:
    """Note a stage of the request, if it is traced."""
    trace = scope.get(_KEY)
    if trace is not None:
        trace.stages.append((name, began, ended))


def annotate(scope: Mapping[str, Any], **attributes: str | int | None) -> None:
    """Note attributes `embedding.NAME` of the request, if it is traced."""
    trace = scope.get(_KEY)
    if trace is not None:
        trace.attributes.update({f"embedding.{name}": value for name, value in attributes.items() if value is not None})


class Tracer:
    """Makes and sends the spans of requests."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("embedding_runtime", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, scope: MutableMapping[str, Any]) -> None:
        """From now on stages of this request are noted."""
        scope[_KEY] = RequestTrace()

    def end(self, scope: Mapping[str, Any], method: str, route: str, status: int, headers: Mapping[str, str]) -> None:
        """Make the spans of a request that was answered; a W3C `traceparent` in its headers is their parent."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        trace: RequestTrace = scope[_KEY]
        now_wall, now = time.time_ns(), time.perf_counter()

        def wall(moment: float) -> int:
            return now_wall - int((now - moment) * 1e9)

        carrier = {name: value for name in ("traceparent", "tracestate") if (value := headers.get(name))}
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=wall(trace.began),
            attributes={
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                **trace.attributes,
            },
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        context = set_span_in_context(span)
        for name, began, ended in trace.stages:
            self._tracer.start_span(name, context=context, start_time=wall(began)).end(end_time=wall(ended))
        span.end(end_time=now_wall)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.shutdown()


def open_tracer(endpoint: str, model: str) -> Tracer:
    """A tracer that sends to the collector at `endpoint`, the base URL of its OTLP/HTTP receiver.

    The standard variables apply to the rest: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS. Raises SettingsError when OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError(
            f"traces need OpenTelemetry ({error}); install embedding-runtime[tracing] or leave the endpoint out"
        ) from error
    return _tracer(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS), model)


def _tracer(exporter: SpanExporter, model: str) -> Tracer:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    described: dict[str, str | bool | int | float] = {SERVICE_VERSION: __version__, "embedding.model": model}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        described[SERVICE_NAME] = "embedding-runtime"
    provider = TracerProvider(resource=Resource.create(described), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)
