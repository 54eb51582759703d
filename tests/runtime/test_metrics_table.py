"""docs/metrics.md lists the metrics that there are, with their types and labels."""

from __future__ import annotations

import re
from pathlib import Path

from embedding_runtime.engine.engine import Engine
from embedding_runtime.engine.model import Item
from embedding_runtime.engine.policy import Limits, Reason, Run
from embedding_runtime.engine.work import Lane, Work
from embedding_runtime.telemetry import Metrics

from tests.runtime.engine.test_engine import NumberModel

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|(.*?)\| (.+) \|$", re.MULTILINE)


def used() -> Metrics:
    """Metrics of a server in which everything has happened once."""
    metrics = Metrics()
    metrics.watch(Engine(NumberModel(), Limits(10, 10, 10, 0.0)))
    metrics.requests("/v1/embeddings", "200").inc()
    metrics.answered("client", "query", {"text": 1}, 5)
    metrics.batch_started(Run((Work(Item(5, None), Lane.BULK, 0.0),), Reason.FULL))
    metrics.batch_ended(Run((), Reason.FULL), 0.1)
    metrics.waited([0.1])
    metrics.shared(1)
    metrics.rejected("queue_full")
    metrics.cancelled(1)
    return metrics


def test_the_table_is_complete_and_true() -> None:
    documented = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in ROW.findall(PAGE.read_text())
    }
    found = {}
    for family in used().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        found[name] = (family.type, frozenset(labels))
    assert documented == found


def test_every_reason_is_explained() -> None:
    row = next(line for line in PAGE.read_text().splitlines() if "`embedding_batches_total`" in line)
    assert all(f"`{reason}`" in row for reason in Reason)


def test_clients_beyond_a_number_share_a_label() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.answered(f"client-{number}", None, {"text": 1}, 1)
    family = next(f for f in metrics.registry.collect() if f.name == "embedding_client_requests")
    counts = {s.labels["client"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert len(counts) == 201
    assert counts["other"] == 800
