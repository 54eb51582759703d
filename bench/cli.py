"""`python -m bench`: our server beside its peers."""

from __future__ import annotations

import dataclasses
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from bench import catalog, document, plot, table, targets
from bench.compare import Request, run
from bench.errors import BenchError
from bench.plan import FULL, QUICK, Plan
from bench.results import Results

_REPOSITORY = Path(__file__).parent.parent
_HELP = """Compare our server with its peers on this machine: same texts, same run, interleaved.

Four workloads decide: 16-token texts and mixed lengths with 32 requests in flight, 32 mixed texts a request with 4 in
flight, and one short query at a time. Every round measures every server on each of them, with all other servers stopped
(SIGSTOP); the figures are medians over rounds, the ratios are paired by round. Then come our own targets: tails of
queries beside bulk, many connections, overload, memory, start, other precisions, and the forward without HTTP.

Peers run in environments of their own, made on first use in ~/.cache/embedding-operator/peers from the hashed
requirements/bench-*.txt. text-embeddings-inference takes part when --tei (TEI=) names its program.

A full run takes about 13 minutes, --quick about 3. Nothing else should run: the report says how busy others kept the
machine, and warns. A full run rewrites the figures and the plot of docs/performance.md (--no-docs: it does not).

Exit statuses: 0 measured (whatever the figures say; --strict: 1 when a target was missed), 2 the run could not be done.
"""
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=_HELP)
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="One round of short windows: a look, not a figure.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds [3, quick: 1].")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.5, help="Length of a window [4, quick: 2].")] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="Peers to run, comma separated: infinity-onnx, infinity-torch, sentence-transformers, "
            "tei; 'all' or 'none'."
        ),
    ] = "all",
    tei: Annotated[Path | None, typer.Option(envvar="TEI", help="text-embeddings-router, to take part.")] = None,
    model: Annotated[
        Path | None, typer.Option(envvar="MODEL", help="Directory of a WordPiece model [all-MiniLM-L6-v2].")
    ] = None,
    precisions: Annotated[str, typer.Option(help="Ours beside Float32, comma separated, or 'none'.")] = "BFloat16,Int8",
    output: Annotated[Path, typer.Option(help="Where result, plot and logs go.")] = Path(".bench"),
    docs: Annotated[
        bool | None, typer.Option("--docs/--no-docs", help="Rewrite docs/performance.md [full: yes].")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a target was missed.")] = False,
) -> None:
    """The options are those of the help text."""
    plan = _plan(QUICK if quick else FULL, rounds, seconds)
    directory = (output / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")).resolve()
    directory.mkdir(parents=True)
    _say(f"results and logs: {directory}")
    began = time.perf_counter()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        sources = catalog.Sources(model or catalog.default_model(), work, tei)
        chosen = None if peers == "all" else frozenset(name for name in peers.split(",") if name and name != "none")
        beside = [name for name in precisions.split(",") if name and name != "none"]
        try:
            results = run(Request(sources, plan, chosen, tuple(beside), directory), _say)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
    results = dataclasses.replace(results, took_seconds=time.perf_counter() - began)
    outcomes = targets.judge(results)
    _write(results, outcomes, directory, to_docs=not quick if docs is None else docs)
    print()
    print(table.report(results, outcomes, targets.errors(results.samples)))
    print("\nmake bench-images measures images, make bench-operator many services, make bench-gpu a GPU")
    if strict and any(outcome.passed is False for outcome in outcomes):
        raise typer.Exit(1)


def _plan(base: Plan, rounds: int | None, seconds: float | None) -> Plan:
    plan = dataclasses.replace(base, rounds=rounds) if rounds else base
    return dataclasses.replace(plan, seconds=seconds, offered_seconds=seconds) if seconds else plan


def _write(results: Results, outcomes: list[targets.Outcome], directory: Path, *, to_docs: bool) -> None:
    result = results.as_json() | {"targets": [dataclasses.asdict(outcome) for outcome in outcomes]}
    body = orjson.dumps(result, option=orjson.OPT_INDENT_2)
    (directory / "result.json").write_bytes(body)
    loads = results.extra.get("offered", ())
    plot.draw(results, loads, directory / "offered-load.svg")
    if to_docs:
        docs = _REPOSITORY / "docs"
        plot.draw(results, loads, docs / "images" / "offered-load.svg")
        (docs / "performance.json").write_bytes(body + b"\n")
        document.update(docs / "performance.md", document.section(results, outcomes, "images/offered-load.svg"))


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


def main() -> None:
    """The console entry. SIGTERM ends like Ctrl-C, so that no server is left stopped in the background."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    app()
