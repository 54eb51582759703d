"""docs/operations.md lists every metric of the operator with its labels, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from embedding_operator.telemetry import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_the_table_of_metrics_is_complete() -> None:
    metrics = Metrics()
    existing = set()
    for collector, names in metrics.registry._collector_to_names.items():
        labels = ",".join(getattr(collector, "_labelnames", ()))
        family = next(iter(collector.describe() if hasattr(collector, "describe") else collector.collect()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name in names
        existing.add(f"{name}{{{labels}}}" if labels else name)
    documented = re.findall(r"^\| `(embedding_operator_[^`]+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(existing)
