"""Prometheus metrics of the server. No label ever holds a client's text. docs/metrics.md lists them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from embedding_runtime import __version__
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.policy import Reason, Run
from embedding_runtime.engine.work import Lane

M = TypeVar("M", bound=MetricWrapperBase)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_POWERS = tuple(float(2**power) for power in range(18))
# Clients are named by the operator's Secret; should names come and go, the later ones share a label.
_MOST_CLIENTS = 200
_OTHER_CLIENTS = "other"
_ANONYMOUS = "anonymous"


class Metrics:
    """All metrics of one server, in a registry of its own. Implements the engine's Observer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        register = self.registry
        self.requests = _children(
            Counter("embedding_requests", "Requests by route and status code.", ["route", "status"], registry=register)
        )
        self._tokens = _children(
            Counter(
                "embedding_tokens", "Tokens fed to the model for clients: the sum of usage.", ["input_type"],
                registry=register,
            )
        )  # fmt: skip
        self._inputs = _children(Counter("embedding_inputs", "Inputs embedded.", ["modality"], registry=register))
        self._client_requests = _children(
            Counter(
                "embedding_client_requests", "Answered requests by the name of the client's key and by input type.",
                ["client", "input_type"], registry=register,
            )
        )  # fmt: skip
        self._client_tokens = _children(
            Counter(
                "embedding_client_tokens", "Tokens by the name of the client's key and by input type.",
                ["client", "input_type"], registry=register,
            )
        )  # fmt: skip
        self._batches = _children(
            Counter("embedding_batches", "Batches by why they started.", ["reason"], registry=register)
        )
        for reason in Reason:
            self._batches(reason.value)
        self._batch_lane_tokens = _children(
            Counter("embedding_batch_lane_tokens", "Tokens of batches by lane.", ["lane"], registry=register)
        )
        self._batch_tokens = Histogram(
            "embedding_batch_tokens", "Tokens of a batch.", buckets=_POWERS, registry=register
        )
        self._batch_items = Histogram("embedding_batch_items", "Inputs of a batch.", buckets=_POWERS, registry=register)
        self._stages = _children(
            Histogram(
                "embedding_stage_seconds", "Time spent per stage.", ["stage"], buckets=_SECONDS, registry=register
            )
        )
        self._rejections = _children(
            Counter("embedding_rejected", "Requests refused or given up.", ["reason"], registry=register)
        )
        self._cancellations = Counter(
            "embedding_cancelled", "Queued inputs that nobody waited for any more.", registry=register
        )
        self._shared = Counter(
            "embedding_deduplicated_inputs", "Inputs that shared the computation of an identical one.",
            registry=register,
        )  # fmt: skip
        self._clients: set[str] = set()

    def watch(self, engine: Engine) -> None:
        """Report the engine's queue, load and model from now on."""
        self.registry.register(_EngineCollector(engine))

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a request, or of a batch, took so long."""
        self._stages(name).observe(seconds)

    def answered(self, client: str | None, input_type: str | None, modalities: Mapping[str, int], tokens: int) -> None:
        """A request was embedded: how many inputs by modality; tokens as in its usage."""
        kind = input_type or "none"
        self._tokens(kind).inc(tokens)
        for modality, inputs in modalities.items():
            self._inputs(modality).inc(inputs)
        name = self._client(client)
        self._client_requests(name, kind).inc()
        self._client_tokens(name, kind).inc(tokens)

    def batch_started(self, run: Run) -> None:
        self._batches(run.reason.value).inc()
        self._batch_tokens.observe(run.tokens)
        self._batch_items.observe(len(run.works))
        for lane, tokens in run.tokens_by_lane.items():
            self._batch_lane_tokens(lane.value).inc(tokens)

    def batch_ended(self, run: Run, seconds: float) -> None:
        self.stage("forward", seconds)

    def waited(self, queue_seconds: Sequence[float]) -> None:
        for seconds in queue_seconds:
            self.stage("queue", seconds)

    def shared(self, items: int) -> None:
        self._shared.inc(items)

    def rejected(self, reason: str) -> None:
        self._rejections(reason).inc()

    def cancelled(self, items: int) -> None:
        self._cancellations.inc(items)

    def _client(self, name: str | None) -> str:
        if name is None:
            return _ANONYMOUS
        if name not in self._clients:
            if len(self._clients) >= _MOST_CLIENTS:
                return _OTHER_CLIENTS
            self._clients.add(name)
        return name


def _children(metric: M) -> Callable[..., M]:
    """The metric's child for label values. `labels` validates and locks; a request needs several of them."""
    # Every metric's label values are few, and the metric itself keeps them all as well.
    return lru_cache(maxsize=None)(metric.labels)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        items = GaugeMetricFamily("embedding_queue_items", "Inputs that wait.", labels=["lane"])
        tokens = GaugeMetricFamily("embedding_queue_tokens", "Tokens that wait.", labels=["lane"])
        oldest = GaugeMetricFamily(
            "embedding_queue_oldest_seconds", "Age of the oldest input that waits.", labels=["lane"]
        )
        for lane in Lane:
            items.add_metric([lane.value], engine.queued_items(lane))
            tokens.add_metric([lane.value], engine.queued_tokens(lane))
            oldest.add_metric([lane.value], engine.oldest_seconds(lane))
        yield from (items, tokens, oldest)
        for name, text, value in (
            ("embedding_utilization", "Demand divided by capacity: 1 is saturated.", engine.utilization()),
            ("embedding_capacity_tokens_per_second", "Measured speed of full batches.", engine.capacity()),
            ("embedding_busy_ratio", "Part of the device that batches had in the last seconds.", engine.busy_ratio()),
            (
                "embedding_batch_token_budget",
                "Tokens a batch may have: less than configured after the device's memory ran out.",
                engine.batch_token_budget(),
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily(
            "embedding_busy_seconds",
            "Time batches ran, each counted by its part of the device.",
            value=engine.busy_seconds(),
        )
        yield _model_info(engine)


def _model_info(engine: Engine) -> Metric:
    identity = engine.model.identity
    labels = {
        "id": identity.id,
        "revision": identity.revision,
        "fingerprint": identity.fingerprint,
        "dimensions": str(identity.dimensions),
        "precision": identity.precision,
        "version": __version__,
    }
    info = GaugeMetricFamily("embedding_model_info", "The served model.", labels=list(labels))
    info.add_metric(list(labels.values()), 1)
    return info
