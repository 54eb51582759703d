"""The plot: throughput and latency of every server against the load that was offered to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from bench.measure import Sample
from bench.results import Results

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

_COLOURS = ("#76b900", "#d62728", "#1f77b4", "#9467bd", "#8c564b", "#7f7f7f")


def draw(results: Results, samples: Sequence[Sample], path: Path) -> None:
    """Write the plot of the offered loads as SVG, the same bytes for the same figures."""
    shown = [server for server in results.servers if any(sample.server == server.name for sample in samples)]
    with mpl.rc_context({"svg.hashsalt": "bench", "font.size": 9, "svg.fonttype": "none"}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for server, colour in zip(shown, _COLOURS, strict=False):
            chosen = sorted(
                (sample for sample in samples if sample.server == server.name), key=lambda sample: sample.offered or 0
            )
            offered = [sample.offered or 0 for sample in chosen]
            left.plot(offered, [s.texts_per_second for s in chosen], "o-", color=colour, label=server.title, ms=3)
            right.plot(offered, [s.p50 for s in chosen], "o-", color=colour, label=f"{server.title}, p50", ms=3)
            right.plot(offered, [s.p99 for s in chosen], "o:", color=colour, ms=3)
        _finish(left, right, max((sample.offered or 0 for sample in samples), default=1))
        figure.suptitle(
            f"all-MiniLM-L6-v2 float32, one text of 4 to 256 tokens a request, Poisson arrivals, "
            f"{results.machine.processors} processors"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _finish(left: Axes, right: Axes, most: float) -> None:
    left.plot([0, most], [0, most], color="#cccccc", lw=1, zorder=0)
    left.set(xlabel="offered, texts/s", ylabel="answered, texts/s", xlim=(0, None), ylim=(0, None))
    left.legend(frameon=False)
    right.set(xlabel="offered, texts/s", ylabel="latency, ms (line: p50, dotted: p99)", yscale="log", xlim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
