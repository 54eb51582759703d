"""The load processes and a window, with the real model behind a real socket."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from embedding_runtime.engine.model import Item
from tokenizers import Tokenizer

from bench.catalog import Sources, default_model, ours, peers
from bench.ceiling import packs
from bench.driver import Driver
from bench.errors import BenchError
from bench.generator import generate
from bench.jobs import Job, Tally
from bench.measure import measure, running_alone, turned
from bench.servers import ServerProcess
from bench.texts import exact_texts, mixed_lengths, mixed_texts, vocabulary
from bench.workloads import BULK, COMPARED, MIXED, SHORT, WORKLOADS, body, requests

MODEL = default_model()
JOB = Job(model=str(MODEL), workload="short", warmup=0.1, seconds=0.3, seed=1, concurrency=4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Our server as the benchmark starts it, stopped between measurements."""
    work = tmp_path_factory.mktemp("bench")
    process = ServerProcess(ours(Sources(MODEL, work)), work)
    try:
        process.wait_until_ready()
        process.pause()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    process = Driver("bench.generator")
    yield process
    process.close()


def test_texts_are_exactly_as_long_as_they_say() -> None:
    words = vocabulary(MODEL)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert {len(tokenizer.encode(text).ids) for text in exact_texts(50, 16, words, 1)} == {16}
    lengths = [len(tokenizer.encode(text).ids) for text in mixed_texts(200, words, 2)]
    assert min(lengths) >= 4
    assert max(lengths) <= 256
    assert 45 < sum(mixed_lengths(5000, 3)) / 5000 < 62


def test_texts_are_the_same_for_every_server_and_do_not_repeat() -> None:
    words = vocabulary(MODEL)
    job = replace(JOB, workload=BULK.name)
    assert requests(job, words) == requests(job, words)
    flat = [text for request in requests(replace(JOB, workload=MIXED.name), words) for text in request]
    # Texts of one or two words may come twice among thousands.
    assert len(set(flat)) > 0.98 * len(flat)
    assert {len(request) for request in requests(job, words)} == {32}


def test_a_job_may_ask_for_other_requests_than_its_workload() -> None:
    words = vocabulary(MODEL)
    job = replace(JOB, tokens=50, texts_per_request=8, encoding="base64")
    made = requests(job, words)
    assert {len(request) for request in made} == {8}
    assert len(made[0][0].split()) == 48
    many = replace(job, tokens=512, concurrency=1000)
    assert sum(map(len, requests(many, words))) == 16_000
    assert b'"encoding_format":"base64"' in body(job, made[0])
    assert b"input_type" not in body(JOB, ["a"])
    assert b'"input_type":"query"' in body(replace(JOB, workload="query"), ["a"])
    assert Job.parse(job.line()) == job


def test_packs_keep_the_budget_unless_one_item_alone_is_over_it() -> None:
    items = [Item(tokens, None) for tokens in (3, 4, 5, 20, 1)]
    assert [[item.tokens for item in pack] for pack in packs(items, 8)] == [[3, 4], [5], [20], [1]]


@pytest.mark.model
@pytest.mark.parametrize("workload", COMPARED, ids=lambda workload: workload.name)
def test_a_window_of_every_workload(server: ServerProcess, driver: Driver, workload: object) -> None:
    chosen = next(each for each in COMPARED if each is workload)
    job = replace(JOB, workload=chosen.name, concurrency=chosen.concurrency, port=server.port)
    with running_alone(server):
        sample = measure(driver, server, job, 0)
    assert sample.statuses.keys() == {"200"}
    assert sample.texts_per_second > 0
    assert 0 < sample.p50 <= sample.p90 <= sample.p99
    assert sample.cpu_seconds_per_1000 > 0
    assert server.peak_rss > 100


class AtOnce(asyncio.Protocol):
    """Answers every request at once; the short ones of these tests arrive in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"POST /v1/embeddings HTTP/1.1")
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


def test_open_loop_offers_what_it_was_told_to() -> None:
    """Against a server that answers at once, so that what is seen is the generator's own pace."""

    async def offer() -> Tally:
        async with await asyncio.get_running_loop().create_server(AtOnce, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            return await generate(replace(JOB, rate=100.0, seconds=3.0, port=port), io.StringIO())

    tally = asyncio.run(offer())
    assert tally.failures == 0
    # Poisson arrivals: within five standard deviations of the 300 expected, in a window that an answer ends.
    assert abs(tally.texts - 100 * tally.seconds) < 5 * math.sqrt(300)


@pytest.mark.model
def test_refusals_are_counted_and_not_answers(server: ServerProcess) -> None:
    job = replace(JOB, path="/v1/nothing", port=server.port, seconds=0.1)
    report = io.StringIO()
    with running_alone(server):
        tally = asyncio.run(generate(job, report))
    assert report.getvalue() == "begin\nend\n"
    assert tally.texts == 0
    assert tally.statuses.keys() == {"404"}
    assert tally.failures == sum(tally.statuses.values())


def test_a_server_that_is_not_there_is_failures_not_a_hang() -> None:
    tally = asyncio.run(generate(replace(JOB, port=1, seconds=0.1), io.StringIO()))
    assert tally.statuses.keys() == {"0"}
    assert tally.latencies == []


def test_a_server_that_ends_is_said_with_its_log(tmp_path: Path) -> None:
    spec = ours(Sources(tmp_path / "no-model", tmp_path))
    process = ServerProcess(spec, tmp_path)
    try:
        with pytest.raises(BenchError, match=r"ended with status 3; see .*ours\.log"):
            process.wait_until_ready()
    finally:
        process.stop()
    assert "no such directory" in process.log.read_text()


def test_a_load_process_that_ends_is_said() -> None:
    broken = Driver("bench.ceiling", ["--model", "/nowhere"])
    try:
        with pytest.raises(BenchError, match=r"bench\.ceiling said ''"):
            broken.wait_for("ready", 60)
    finally:
        broken.close()


def test_a_peer_program_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is no program"):
        peers(Sources(MODEL, tmp_path, tei=tmp_path), frozenset({"tei"}))


def test_the_order_of_servers_turns() -> None:
    assert [turned([1, 2, 3], by) for by in range(4)] == [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]  # type: ignore[list-item]
    assert turned([], 2) == []


def test_a_tally_of_nothing_has_no_latency() -> None:
    tally = Tally.parse(Tally(seconds=1.0, texts=0, latencies=[]).line())
    assert tally.failures == 0
    assert math.isclose(tally.seconds, 1.0)
    assert SHORT.name in WORKLOADS
