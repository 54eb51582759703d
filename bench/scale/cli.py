"""`python -m bench.scale`: the operator with many EmbeddingServices on a real control plane, as a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from bench.scale.report import failed, table
from bench.scale.run import RESYNC_SECONDS, SERVICES, ScaleError, measure


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The console entry."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=measure.__doc__)
    parser.add_argument("--services", type=int, default=SERVICES, help=f"how many EmbeddingServices [{SERVICES}]")
    resync = f"seconds between two resyncs of the operator [{RESYNC_SECONDS:g}]"
    parser.add_argument("--resync", type=float, default=RESYNC_SECONDS, help=resync)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    arguments = parser.parse_args()
    try:
        report = measure(arguments.services, resync=arguments.resync, say=_say)
    except ScaleError as error:
        raise SystemExit(f"error: {error}") from error
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    if arguments.strict and failed(report):
        raise SystemExit(1)
