"""What is asked of a server: the four workloads that servers are compared by, and the bodies of their requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from bench.jobs import Job
from bench.texts import SHORT_TOKENS, exact_texts, mixed_texts

_TEXTS = 4096
# Served by every server of a run under this name.
MODEL_NAME = "minilm"


class Lengths(StrEnum):
    """Which texts: all of 16 tokens, or lognormal between 4 and 256."""

    SHORT = "short"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of `texts_per_request` texts, `concurrency` of them in flight at any time."""

    name: str
    title: str
    lengths: Lengths
    texts_per_request: int
    concurrency: int
    input_type: str | None = None


SHORT = Workload("short", "16-token texts, 32 in flight", Lengths.SHORT, 1, 32)
MIXED = Workload("mixed", "mixed lengths, 32 in flight", Lengths.MIXED, 1, 32)
BULK = Workload("bulk", "32 mixed texts a request, 4 in flight", Lengths.MIXED, 32, 4)
LONE = Workload("lone", "one short query at a time", Lengths.SHORT, 1, 1)
COMPARED = (SHORT, MIXED, BULK, LONE)

# Only our server knows these fields: a person's query beside a pipeline's passages.
QUERY = Workload("query", "one short query at a time", Lengths.SHORT, 1, 1, "query")
PASSAGES = Workload("passages", "32 mixed passages a request, 8 in flight", Lengths.MIXED, 32, 8, "passage")
WORKLOADS = {workload.name: workload for workload in (*COMPARED, QUERY, PASSAGES)}


def texts_in_flight(job: Job) -> int:
    """How many texts a job in closed loop has in flight."""
    return (job.texts_per_request or WORKLOADS[job.workload].texts_per_request) * job.concurrency


def requests(job: Job, words: Sequence[str]) -> list[list[str]]:
    """The texts of a job's requests: thousands, fewer of long ones, before they come again."""
    workload = WORKLOADS[job.workload]
    size = job.texts_per_request or workload.texts_per_request
    # Never so few that a text is in flight twice.
    total = max(2 * texts_in_flight(job), _TEXTS // max(1, job.tokens // 32))
    count = -(-total // size) * size
    if job.tokens:
        flat = exact_texts(count, job.tokens, words, job.seed)
    elif workload.lengths is Lengths.SHORT:
        flat = exact_texts(count, SHORT_TOKENS, words, job.seed)
    else:
        flat = mixed_texts(count, words, job.seed)
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def body(job: Job, texts: Sequence[str]) -> bytes:
    """The body of one request: the same bytes for every server."""
    input_type = WORKLOADS[job.workload].input_type
    extra = {"input_type": input_type} if input_type else {}
    if job.encoding != "float":
        extra["encoding_format"] = job.encoding
    return orjson.dumps({"model": MODEL_NAME, "input": list(texts), **extra})
