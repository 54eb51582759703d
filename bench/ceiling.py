"""`python -m bench.ceiling`: what the model does in process, with tokenising and without HTTP, engine or event loop.

Speaks the protocol of the load process (bench/jobs.py). Each step takes as many texts as the job has in flight,
tokenises them (or did so before: `prepared`), and runs them in packs of the token budget.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from embedding_runtime.engine.model import Item, Model, Truncation
from embedding_runtime.models.loader import LoadRequest, load_model

from bench.jobs import BEGIN, END, Job, Tally
from bench.texts import vocabulary
from bench.workloads import requests, texts_in_flight


def packs(items: Sequence[Item], budget: int) -> Iterator[list[Item]]:
    """The items in order, in packs of at most `budget` tokens; a larger item alone."""
    pack: list[Item] = []
    size = 0
    for item in items:
        if pack and size + item.tokens > budget:
            yield pack
            pack, size = [], 0
        pack.append(item)
        size += item.tokens
    if pack:
        yield pack


def prepare(model: Model, texts: Sequence[str]) -> list[Item]:
    """Tokenised, equal lengths together."""
    return sorted(model.prepare(texts, None, Truncation.END), key=lambda item: item.tokens)


def embed(model: Model, items: Sequence[Item], budget: int) -> int:
    """Embed in packs; the number of tokens."""
    for pack in packs(items, budget):
        model.embed([item.payload for item in pack])
    return sum(item.tokens for item in items)


def run(model: Model, budget: int, job: Job, words: Sequence[str], say: Callable[[str], None]) -> Tally:
    """Do one job."""
    in_flight = texts_in_flight(job)
    flat = [text for request in requests(job, words) for text in request]
    batches = [flat[start : start + in_flight] for start in range(0, len(flat) - in_flight + 1, in_flight)]
    ready = [prepare(model, batch) for batch in batches] if job.prepared else []
    turns = itertools.cycle(range(len(batches)))

    def step() -> tuple[int, int]:
        turn = next(turns)
        items = ready[turn] if ready else prepare(model, batches[turn])
        return len(items), embed(model, items, budget)

    opens = time.perf_counter() + job.warmup
    step()
    while time.perf_counter() < opens:
        step()
    say(BEGIN)
    began = now = time.perf_counter()
    count = tokens = 0
    latencies = []
    while now - began < job.seconds:
        texts, fed = step()
        count, tokens, before = count + texts, tokens + fed, now
        now = time.perf_counter()
        latencies.append(now - before)
    say(END)
    return Tally(seconds=now - began, texts=count, latencies=latencies, statuses={"200": len(latencies)}, tokens=tokens)


def main() -> None:
    """Load the model, say `ready`, then one job per line of stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="float32", help="float32, bfloat16, float16 or int8")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-tokens", type=int, help="token budget of a pack [the model's for the device]")
    arguments = parser.parse_args()

    def say(word: str) -> None:
        print(word, flush=True)

    with tempfile.TemporaryDirectory() as cache:
        request = LoadRequest(
            arguments.model,
            served_name="model",
            cache=Path(cache),
            device=arguments.device,
            precision=arguments.precision,
        )
        model = load_model(request, lambda message: None)
        budget = arguments.batch_tokens or model.default_batch_tokens
        words = vocabulary(Path(arguments.model))
        say("ready")
        for line in sys.stdin:
            say(run(model, budget, Job.parse(line), words, say).line())


if __name__ == "__main__":
    main()
