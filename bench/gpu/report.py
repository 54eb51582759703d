"""The figures of a GPU run as a table, beside the goals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.gpu.measure import Speed
from bench.gpu.shapes import GOAL_DEVICE, GOALS, Shape
from bench.table import Row, text_table


def best(speeds: Sequence[Speed], model: str, where: str, length: int) -> Speed | None:
    """The fastest way found, among those without failures."""
    chosen = [
        speed
        for speed in speeds
        if (speed.model, speed.where, speed.length) == (model, where, length) and not speed.failures
    ]
    return max(chosen, key=lambda speed: speed.tokens_per_second, default=None)


def summary(speeds: Sequence[Speed], shapes: Sequence[Shape], device: str) -> list[Row]:
    """For each model, length and place the best figure, the arithmetic it is, and the goal."""
    rows: list[Row] = [["model", "tokens a text", "where", "best tokens/s", "TFLOP/s", "how", "goal"]]
    for shape in shapes:
        for length in sorted({speed.length for speed in speeds}):
            for where in ("forward", "in process", "HTTP"):
                found = best(speeds, shape.name, where, length)
                if found is None:
                    continue
                teraflops = found.tokens_per_second * shape.flops_per_token(length) / 1e12
                how = f"{found.precision}, {found.texts_per_request} x {found.in_flight} in flight"
                how += f", {found.batch_tokens} tokens a batch" if found.batch_tokens else ""
                figures = [f"{found.tokens_per_second:,.0f}", f"{teraflops:.3g}"]
                rows.append([shape.title, str(length), where, *figures, how, goal(shape, found, device)])
    return rows


def goal(shape: Shape, speed: Speed, device: str) -> str:
    """Whether the goal is reached; goals are for one device, and for what users see: HTTP."""
    wanted = GOALS.get(shape.name)
    if wanted is None or GOAL_DEVICE not in device:
        return "–"
    return f"{'pass' if speed.tokens_per_second >= wanted else 'FAIL'} ({wanted / 1e6:.2g} M)"


def report(speeds: Sequence[Speed], shapes: Sequence[Shape], device: str) -> str:
    """The table for a terminal."""
    failed = [speed for speed in speeds if speed.failures]
    lines = [text_table(summary(speeds, shapes, device)), f"on {device}"]
    if failed:
        lines.append(f"{len(failed)} windows had failed requests and were left out; see the result file")
    return "\n\n".join(lines)
