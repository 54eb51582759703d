"""`python -m bench.gpu`: the command."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from bench import machine
from bench.errors import BenchError
from bench.gpu import checkpoints
from bench.gpu.measure import GpuPlan, Speed, Subject, in_process, over_http
from bench.gpu.report import report
from bench.gpu.shapes import SHAPES, Shape, tiny
from bench.peers.environments import cache

_HELP = """Tokens/s of our runtime on this host's GPU, unattended.

Builds seeded random checkpoints of BERT-base, BERT-large and llama-nemotron-embed-1b's shape once (about 3.5 GB in
~/.cache/embedding-operator/gpu; no network), then measures each at 50 and 512 tokens a text: the forward alone, the
forward with tokenising, and our server over HTTP under several load processes. Prints the best of each beside the goals
and writes every figure as JSON. About 25 minutes with both precisions.

Without CUDA it ends with status 2 and says so. --device cpu --tiny tries the whole way on small models anywhere.
"""
_TINY = GpuPlan(budgets=(512,), in_flight=(8,), http=((1, 4), (4, 2)), seconds=0.5, warmup=0.2, generators=2)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=_HELP)
def bench_gpu(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    use_tiny: Annotated[bool, typer.Option("--tiny", help="Small models, short windows: tries the script.")] = False,
    models: Annotated[str, typer.Option(help="Names of models, comma separated.")] = "bert-base,bert-large,llama-1b",
    precisions: Annotated[str, typer.Option(help="Comma separated.")] = "BFloat16,Float16",
    seconds: Annotated[float | None, typer.Option(min=0.2, help="Length of a window [5].")] = None,
    output: Annotated[Path, typer.Option(help="Where result and logs go.")] = Path(".bench"),
    checkpoints_at: Annotated[Path | None, typer.Option("--checkpoints", help="Where the models are kept.")] = None,
) -> None:
    """The options are those of the help text."""
    try:
        name = device_name(device)
        chosen = chosen_shapes(models)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    shapes = [tiny(shape) for shape in chosen] if use_tiny else chosen
    base = _TINY if use_tiny else GpuPlan()
    plan = replace(base, seconds=seconds or base.seconds)
    logs = (output / f"gpu-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}").resolve()
    logs.mkdir(parents=True)
    _say(f"on {name}; results and logs: {logs}")
    speeds = measure(shapes, precisions.split(","), device, plan, checkpoints_at or cache().parent / "gpu", logs)
    result = {"device": name, "machine": machine.describe(), "speeds": [speed.as_json() for speed in speeds]}
    (logs / "result.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    print()
    print(report(speeds, shapes, name))
    if not speeds:
        raise typer.Exit(2)


def device_name(device: str) -> str:
    """What is measured on. Raises BenchError when it is not there."""
    if device == "cpu":
        return machine.describe().processor
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        raise BenchError(
            "this benchmark needs an NVIDIA GPU that torch can use, and there is none; run it on a GPU host "
            "(nvidia-smi shows what the driver sees), or try the script anywhere with --device cpu --tiny"
        )
    return str(torch.cuda.get_device_name())


def chosen_shapes(names: str) -> list[Shape]:
    """The shapes by name. Raises BenchError for an unknown one."""
    known = {shape.name: shape for shape in SHAPES}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise BenchError(f"--models {','.join(unknown)} is none of {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def measure(
    shapes: list[Shape], precisions: list[str], device: str, plan: GpuPlan, directory: Path, logs: Path
) -> list[Speed]:
    """Every figure. What one model or precision cannot do is said and does not end the run."""
    speeds: list[Speed] = []
    for shape in shapes:
        began = time.perf_counter()
        checkpoints.build(directory / shape.name, shape)
        _say(f"{shape.title}: checkpoint there after {time.perf_counter() - began:.0f} s")
        for precision in precisions:
            subject = Subject(shape.name, directory / shape.name, precision, device, plan, logs, _say)
            for way in (in_process, over_http):
                try:
                    speeds.extend(way(subject))
                except BenchError as error:
                    _say(f"{shape.title} {precision} {way.__name__}: left out: {error}")
    return speeds


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


def main() -> None:
    """The console entry."""
    app()
