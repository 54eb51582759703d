"""docs/performance.md: the part between the markers is written by a full run, the rest by people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.results import Results
from bench.table import conditions, figures, markdown_table, targets
from bench.targets import Outcome

BEGIN_MARK, END_MARK = "<!-- written by make bench: begin -->", "<!-- written by make bench: end -->"


def section(results: Results, outcomes: Sequence[Outcome], plot: str) -> str:
    """Tables, plot and conditions in Markdown."""
    commands = "\n".join(
        f"- {server.name}, {f'{server.title} {server.version}'.rstrip()}: `{server.command}`"
        for server in results.servers
    )
    return "\n\n".join(
        [
            markdown_table(figures(results)),
            f"![Throughput and latency against offered load]({plot})",
            markdown_table(targets(outcomes)),
            "A difference within 10 % is no finding, whatever the mark says.",
            "\n".join(f"- {line}" for line in conditions(results)),
            f"Started as:\n\n{commands}",
        ]
    )


def replaced(document: str, text: str) -> str:
    """The document with new text between the markers. Raises BenchError when it has none."""
    head, begin, rest = document.partition(BEGIN_MARK)
    _, end, tail = rest.partition(END_MARK)
    if not begin or not end:
        raise BenchError(f"the document has no lines {BEGIN_MARK!r} and {END_MARK!r}")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def update(path: Path, text: str) -> None:
    """Replace what is between the markers of a file."""
    path.write_text(replaced(path.read_text(encoding="utf-8"), text), encoding="utf-8")
