"""How the operator does with many EmbeddingServices: `measure` gives a `Report`, `table` shows it."""

from bench.scale.report import Report, table
from bench.scale.run import measure

__all__ = ["Report", "measure", "table"]
