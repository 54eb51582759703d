"""Prometheus metrics of the server. No label ever holds a client's text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedding_runtime import __version__
from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.policy import Lane, Run

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_POWERS = tuple(float(2**power) for power in range(18))


class Metrics:
    """All metrics of one server, in a registry of its own. Implements the engine's Observer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        register = self.registry
        self.requests = Counter(
            "embedding_requests", "Requests by route and status code.", ["route", "status"], registry=register
        )
        self.tokens = Counter(
            "embedding_tokens", "Tokens fed to the model for clients: the sum of usage.", ["input_type"],
            registry=register,
        )  # fmt: skip
        self.inputs = Counter("embedding_inputs", "Inputs embedded.", ["modality"], registry=register)
        self.batches = Counter("embedding_batches", "Batches by why they started.", ["reason"], registry=register)
        self.batch_tokens = Histogram(
            "embedding_batch_tokens", "Tokens of a batch.", buckets=_POWERS, registry=register
        )
        self.batch_items = Histogram("embedding_batch_items", "Inputs of a batch.", buckets=_POWERS, registry=register)
        self.stage_seconds = Histogram(
            "embedding_stage_seconds", "Time spent per stage.", ["stage"], buckets=_SECONDS, registry=register
        )
        self.rejections = Counter("embedding_rejected", "Requests refused or given up.", ["reason"], registry=register)
        self.cancellations = Counter(
            "embedding_cancelled", "Queued inputs that nobody waited for any more.", registry=register
        )

    def watch(self, engine: Engine) -> None:
        """Report the engine's queue, load and model from now on."""
        self.registry.register(_EngineCollector(engine))

    def batch_started(self, run: Run, queue_seconds: float) -> None:
        self.batches.labels(run.reason.value).inc()
        self.batch_tokens.observe(run.tokens)
        self.batch_items.observe(len(run.entries))
        self.stage_seconds.labels("queue").observe(queue_seconds)

    def batch_ended(self, run: Run, seconds: float) -> None:
        self.stage_seconds.labels("inference").observe(seconds)

    def rejected(self, reason: str) -> None:
        self.rejections.labels(reason).inc()

    def cancelled(self, items: int) -> None:
        self.cancellations.inc(items)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        items = GaugeMetricFamily("embedding_queue_items", "Inputs that wait.", labels=["lane"])
        tokens = GaugeMetricFamily("embedding_queue_tokens", "Tokens that wait.", labels=["lane"])
        oldest = GaugeMetricFamily(
            "embedding_queue_oldest_seconds", "Age of the oldest request that waits.", labels=["lane"]
        )
        for lane in Lane:
            items.add_metric([lane.value], engine.queued_items(lane))
            tokens.add_metric([lane.value], engine.queued_tokens(lane))
            oldest.add_metric([lane.value], engine.oldest_seconds(lane))
        yield from (items, tokens, oldest)
        yield GaugeMetricFamily(
            "embedding_utilization", "Demand divided by capacity: 1 is saturated.", value=engine.utilization()
        )
        yield GaugeMetricFamily(
            "embedding_capacity_tokens_per_second", "Measured speed of the model.", value=engine.capacity()
        )
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
        yield info
