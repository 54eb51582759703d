"""Clients that misbehave, over raw sockets: each costs bounded memory and time and changes nobody else's answer."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from embedding_runtime.api.embeddings import ApiLimits
from embedding_runtime.api.protocol import ConnectionLimits
from embedding_runtime.engine.policy import Limits

from tests.runtime.api.served import Served, served
from tests.runtime.helpers import total, wait_until

CONNECTIONS = ConnectionLimits(
    header_seconds=0.5, body_silence_seconds=0.5, body_seconds=1.5, answer_silence_seconds=3.0, answer_seconds=60
)
BODY = b'{"model":"letters","input":"a b c"}'
ANSWER = {"prompt_tokens": 3, "total_tokens": 3}


@pytest.fixture(scope="module")
def it() -> Iterator[Served]:
    """Short limits, so that reaching them is quick."""
    limits = ApiLimits(body_bytes=4_000_000, all_bodies_bytes=10_000_000)
    with served(connections=CONNECTIONS, api=limits) as it:
        yield it


@pytest.fixture(autouse=True)
def unharmed(it: Served) -> Iterator[None]:
    """Whatever a test did, the next client is answered rightly and no memory is kept."""
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    answer = httpx.post(f"{it.url}/v1/embeddings", content=BODY)
    assert (answer.status_code, answer.json()["usage"]) == (200, ANSWER)
    assert process.memory_info().rss - before < 120_000_000
    wait_until(lambda: not it.server.server_state.tasks, 5, "no request in progress")


def connect(it: Served) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", it.port))
    connection.settimeout(10)
    return connection


def head(length: int | str = len(BODY), *more: str) -> bytes:
    lines = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {length}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def read(connection: socket.socket) -> bytes:
    """Everything until the server closes, or resets."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


def pour(connection: socket.socket, chunk: bytes, times: int) -> int:
    """Send until done or cut off; the bytes that were taken."""
    sent = 0
    try:
        for _ in range(times):
            connection.sendall(chunk)
            sent += len(chunk)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("start", [b"", b"POST /v1/emb", b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_headers_that_never_end(it: Served, start: bytes) -> None:
    with connect(it) as connection:
        began = time.monotonic()
        connection.sendall(start)
        assert status(read(connection)) == 408
        assert time.monotonic() - began < 5


def test_a_header_byte_at_a_time(it: Served) -> None:
    with connect(it) as connection:
        began = time.monotonic()
        connection.sendall(b"POST / HTTP/1.1\r\nx: ")
        while time.monotonic() - began < 5:
            try:
                connection.sendall(b"a")
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - began < 3


def test_half_a_body(it: Served) -> None:
    with connect(it) as connection:
        connection.sendall(head() + BODY[:10])
        assert status(read(connection)) == 408


def test_a_body_byte_at_a_time(it: Served) -> None:
    with connect(it) as connection:
        began = time.monotonic()
        connection.sendall(head(1000))
        while time.monotonic() - began < 6:
            try:
                connection.sendall(b" ")
            except OSError:
                break
            time.sleep(0.1)
        assert time.monotonic() - began < 4


def test_a_gigabyte_is_refused_by_its_length_and_the_client_reads_why(it: Served) -> None:
    with connect(it) as connection:
        connection.sendall(head(1_000_000_000))
        pour(connection, b" " * 65536, 16)
        received = b""
        while b"}" not in received:
            received += connection.recv(65536)
        assert status(received) == 413
        assert b'"object":"error"' in received


def test_a_gigabyte_without_a_length_is_cut_off(it: Served) -> None:
    with connect(it) as connection:
        lines = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(lines.encode())
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        assert pour(connection, chunk, 16_000) < 200_000_000
        assert status(read(connection) or b"HTTP/1.1 413 ") == 413


def test_many_large_bodies_at_once_are_bounded_together(it: Served) -> None:
    connections = [connect(it) for _ in range(8)]
    try:
        for connection in connections:
            connection.sendall(head(3_900_000))
            pour(connection, b" " * 39_000, 60)
        time.sleep(0.1)
        assert httpx.get(f"{it.url}/v1/health/ready").status_code == 200
    finally:
        statuses = [status(read(connection) or b"HTTP/1.1 429 ") for connection in connections]
        for connection in connections:
            connection.close()
    assert set(statuses) <= {408, 429}
    assert 429 in statuses


@pytest.mark.parametrize(("count", "size"), [(10_000, 10), (1, 5_000_000), (150, 1000)])
def test_too_many_and_too_large_headers(it: Served, count: int, size: int) -> None:
    with connect(it) as connection:
        pour(connection, b"GET /v1/version HTTP/1.1\r\nhost: x\r\n", 1)
        header = b"x: " + b"a" * size + b"\r\n"
        pour(connection, header, count)
        pour(connection, b"\r\n", 1)
        received = read(connection)
        assert not received or status(received) == 431


def test_ordinary_headers_pass(it: Served) -> None:
    headers = {f"x-{n}": "a" * 300 for n in range(100)}
    assert httpx.get(f"{it.url}/v1/version", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe" + BODY,
        b'{"model":"letters","input":"\xc3\x28"}',
        b'{"model":"letters","input":"\\ud800"}',
        b"[" * 100_000,
        b'{"model":"letters","input":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"model":"letters","input":"a","x":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"model":"letters","input":["a"],"dimensions":' + b"9" * 900 + b"}",
        b'{"model":"letters","input":"a","x":NaN}',
        BODY.decode().encode("utf-16"),
        b"",
        BODY + b"{}",
        b"[" + b"[]," * 1_200_000 + b"[]]",
        b'{"model":"letters","input":[' + b'"",' * 900_000 + b'""]}',
        b'{"model":"letters","input":[' + b'"a",' * 8192 + b'"a"]}',
    ],
)
def test_bodies_that_are_no_request(it: Served, body: bytes) -> None:
    answer = httpx.post(f"{it.url}/v1/embeddings", content=body, timeout=20)
    assert answer.status_code == 400
    assert answer.json()["object"] == "error"
    assert len(answer.content) < 1000


def test_garbage_instead_of_http(it: Served) -> None:
    with connect(it) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10)
        received = read(connection)
        assert status(received) == 400
        assert json.loads(received.split(b"\r\n\r\n", 1)[1])["object"] == "error"


def test_a_few_pipelined_requests_are_answered_in_order(it: Served) -> None:
    with connect(it) as connection:
        bodies = [json.dumps({"model": "letters", "input": "a " * n}).encode() for n in range(1, 6)]
        connection.sendall(b"".join(head(len(body)) + body for body in bodies))
        received = b""
        while received.count(b'"usage"') < 5 or not received.endswith(b"}"):
            received += connection.recv(65536)
        assert [received.index(f'"total_tokens":{n}'.encode()) for n in range(1, 6)] == sorted(
            received.index(f'"total_tokens":{n}'.encode()) for n in range(1, 6)
        )


def test_endless_pipelining_is_not_read(it: Served) -> None:
    it.model.gate.clear()
    try:
        with connect(it) as connection:
            connection.settimeout(2)
            sent = pour(connection, (head() + BODY) * 100, 2000)
            assert sent < 30_000_000
            assert len(it.server.server_state.tasks) == 1
    finally:
        it.model.gate.set()


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Status and body of every answer in what a connection received."""
    found = []
    while received:
        start, rest = received.split(b"\r\n\r\n", 1)
        length = int(next(line for line in start.split(b"\r\n") if line.startswith(b"content-length:"))[15:])
        found.append((status(start), rest[:length]))
        received = rest[length:]
    return found


def requests(counts: range) -> bytes:
    bodies = [json.dumps({"model": "letters", "input": "a " * (n % 16 + 1)}).encode() for n in counts]
    return b"".join(head(len(body)) + body for body in bodies)


def assert_in_order(found: list[tuple[int, bytes]], counts: range) -> None:
    assert [code for code, _ in found] == [200] * len(counts)
    assert [json.loads(body)["usage"]["total_tokens"] for _, body in found] == [n % 16 + 1 for n in counts]


@pytest.mark.parametrize("chunk", [1, 900, 5000, 10**9])
def test_hundreds_of_pipelined_requests_are_answered_in_order(
    it: Served, chunk: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However they arrive: together, in pieces, byte for byte."""
    counts = range(300 if chunk > 1 else 20)
    sent = requests(counts) + b"GET /v1/version HTTP/1.1\r\nconnection: close\r\n\r\n"
    with caplog.at_level(logging.WARNING), connect(it) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), chunk):
            connection.sendall(sent[start : start + chunk])
        *found, last = answers(read(connection))
    assert_in_order(found, counts)
    assert last[0] == 200
    assert not caplog.records


@pytest.mark.parametrize(
    ("behind", "code"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"x: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nhost:", 408),
        (head(1000) + b"{", 408),
    ],
)
def test_answers_are_not_lost_to_what_comes_behind_them(
    it: Served, behind: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Forty requests and then something that is refused: forty answers and then the refusal."""
    counts = range(40)
    it.model.gate.clear()
    with caplog.at_level(logging.ERROR), connect(it) as connection:
        connection.sendall(requests(counts) + behind)
        wait_until(lambda: len(it.server.server_state.tasks) == 1, 5, "the first request")
        # Longer than the limits: nobody is blamed for what is not read.
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 2 * CONNECTIONS.header_seconds, 5, "the limits to pass")
        it.model.gate.set()
        *found, last = answers(read(connection))
    assert_in_order(found, counts)
    assert last[0] == code
    assert json.loads(last[1])["object"] == "error"
    assert not caplog.records


UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")


@pytest.mark.parametrize("pieces", [1, 7])
def test_the_wish_for_another_protocol_is_ignored(it: Served, pieces: int, caplog: pytest.LogCaptureFixture) -> None:
    """Java's client asks for HTTP/2 in its first request, and sends the body behind it."""
    bodies = [json.dumps({"model": "letters", "input": "a " * n}).encode() for n in (2, 3)]
    sent = b"".join(head(len(body), *UPGRADE) + body for body in bodies)
    sent += b"GET /v1/version HTTP/1.1\r\nhost: x\r\n" + "\r\n".join(UPGRADE).encode() + b"\r\n\r\n"
    sent += b"GET /v1/version HTTP/1.1\r\nconnection: close\r\n\r\n"
    with caplog.at_level(logging.WARNING), connect(it) as connection:
        step = len(sent) // pieces + 1
        for start in range(0, len(sent), step):
            connection.sendall(sent[start : start + step])
        found = answers(read(connection))
    assert [code for code, _ in found] == [200] * 4
    assert [json.loads(body)["usage"]["total_tokens"] for _, body in found[:2]] == [2, 3]
    assert not caplog.records


@pytest.mark.parametrize("behind", [b"", b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_connect_is_refused(it: Served, behind: bytes) -> None:
    with connect(it) as connection:
        connection.sendall(b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n" + behind)
        assert [code for code, _ in answers(read(connection))] == [400]


def test_a_request_is_answered_once_though_its_body_never_comes(it: Served) -> None:
    with connect(it) as connection:
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\nabc")
        assert [code for code, _ in answers(read(connection))] == [200]


def unread(it: Served, requests: int) -> socket.socket:
    """A connection with answers that do not fit into the sockets' buffers."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", it.port))
    body = b'{"model":"letters","input":[' + b",".join([b'"a"'] * 8192) + b"]}"
    pour(connection, head(len(body)) + body, requests)
    return connection


def test_answers_that_nobody_reads_are_dropped(it: Served) -> None:
    with unread(it, 12):
        wait_until(lambda: it.server.server_state.connections, 5, "a connection")
        wait_until(lambda: not it.server.server_state.connections, 15, "no connection, and so no answer kept for it")


def test_answers_that_nobody_reads_are_bounded_together_and_the_oldest_goes_first() -> None:
    bounds = ConnectionLimits(unread_bytes=500_000)
    with served(limits=Limits(10_000, 10_000, 10**7, 0.0), connections=bounds) as it, contextlib.ExitStack() as held:
        open_ones = it.server.server_state.connections

        def kept() -> int:
            return sum(connection.transport.get_write_buffer_size() for connection in tuple(open_ones))

        # More than the kernel takes for them; then each connection keeps one answer, and the next request waits.
        for _ in range(6):
            held.enter_context(unread(it, 12))
        wait_until(lambda: len(open_ones) < 6, 30, "a connection given up")
        wait_until(lambda: 0 < kept() < 500_000 + 700_000, 30, "what is kept to be bounded")
        assert open_ones


def test_endless_trailers_are_refused(it: Served) -> None:
    """Headers behind a chunked body: nobody asked for them, and nothing keeps them."""
    with connect(it) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        )
        lines = b"".join(b"a%d: b\r\n" % number for number in range(20_000))
        assert pour(connection, lines, 100) < 20_000_000
        assert status(read(connection) or b"HTTP/1.1 431 ") == 431


def test_a_few_trailers_are_ignored(it: Served) -> None:
    with connect(it) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"%x\r\n%s\r\n0\r\nauthorization: Bearer x\r\nx-sum: 1\r\n\r\n" % (len(BODY), BODY)
        )
        assert status(read(connection)) == 200


def test_answers_that_are_read_slowly_arrive(it: Served) -> None:
    with unread(it, 6) as connection:
        received = bytearray()
        began = time.monotonic()
        while received.count(b'"usage"') < 6:
            chunk = connection.recv(16384)
            assert chunk, "the connection was aborted"
            received += chunk
            # Slower than the limit for silence, all of it together.
            time.sleep(0.005 if time.monotonic() - began < 2.5 else 0)
        assert received.count(b"HTTP/1.1 200 OK") == 6


def test_hanging_up_with_requests_pipelined(it: Served, caplog: pytest.LogCaptureFixture) -> None:
    it.model.gate.clear()
    with caplog.at_level(logging.WARNING):
        connection = connect(it)
        connection.sendall(requests(range(100)))
        wait_until(lambda: len(it.server.server_state.tasks) == 1, 5, "the first request")
        connection.close()
        it.model.gate.set()
        wait_until(lambda: not it.server.server_state.tasks, 5, "no request in progress")
    assert not caplog.records


def test_hanging_up_while_queued_and_while_running(it: Served) -> None:
    it.model.gate.clear()
    try:
        metrics = f"{it.url}/v1/metrics"
        earlier = httpx.get(metrics).text
        cancelled, batches = (total(earlier, f"embedding_{what}_total") for what in ("cancelled", "batches"))
        running = connect(it)
        running.sendall(head() + BODY)
        wait_until(lambda: total(httpx.get(metrics).text, "embedding_batches_total") > batches, 5, "a running batch")
        waiting = [connect(it) for _ in range(5)]
        for connection in waiting:
            connection.sendall(head() + BODY)
        wait_until(lambda: queued(it) == 5, 5, "five queued requests")
        for connection in [running, *waiting]:
            connection.close()
        wait_until(lambda: queued(it) == 0, 5, "an empty queue")
        wait_until(
            lambda: total(httpx.get(metrics).text, "embedding_cancelled_total") == cancelled + 5, 5, "cancellations"
        )
    finally:
        it.model.gate.set()


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_hanging_up_while_tokenised(it: Served, size: int) -> None:
    """The work ends at its next checkpoint, and what waited for a thread never begins."""
    it.model.reading.clear()
    try:
        body = b'{"model":"letters","truncate":"END","input":"' + b"a" * size + b'"}'
        connections = [connect(it) for _ in range(6 if size < 1_000_000 else 3)]
        for connection in connections:
            connection.sendall(head(len(body)) + body)
        wait_until(lambda: it.model.preparing == len(connections) - (2 if size < 1_000_000 else 1), 5, "tokenising")
        for connection in connections:
            connection.close()
        wait_until(lambda: it.model.preparing == 0, 5, "the end of tokenising")
        wait_until(lambda: not it.server.server_state.tasks, 5, "no request in progress")
    finally:
        it.model.reading.set()


def queued(it: Served) -> float:
    return total(httpx.get(f"{it.url}/v1/metrics").text, "embedding_queue_items")


def test_everything_at_once_and_everyone_else_is_served(it: Served) -> None:
    """While two hundred connections do nothing useful, ordinary requests are answered, and quickly."""
    bad = [connect(it) for _ in range(200)]
    try:
        for number, connection in enumerate(bad):
            connection.sendall([b"POST /v1", head(10**6) + b"[", head() + BODY[:5], b"\r\n"][number % 4])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx.post(f"{it.url}/v1/embeddings", content=BODY), range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.json()["usage"] == ANSWER for answer in answers)
        began = time.monotonic()
        assert httpx.get(f"{it.url}/v1/health/live").status_code == 200
        assert time.monotonic() - began < 1
    finally:
        for connection in bad:
            connection.close()
