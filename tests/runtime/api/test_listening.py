"""TLS with certificates renewed in place, both address families, drain, and what the log says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from embedding_runtime.api.listening import listen
from embedding_runtime.api.server import ServerSettings
from embedding_runtime.errors import ListenError, SettingsError
from embedding_runtime.logs import set_up_logging

from tests.runtime.api.served import served
from tests.runtime.helpers import wait_until

BODY = {"model": "letters", "input": "a secret sentence"}


def issue(directory: Path, serial: int) -> None:
    """Write tls.crt and tls.key for localhost, each replaced at once as a mounted Secret is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in (("tls.key", private), ("tls.crt", certificate.public_bytes(pem))):
        (directory / "new").write_bytes(content)
        os.replace(directory / "new", directory / path)


def serial(port: int) -> int:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number


def test_a_certificate_renewed_in_place_is_used(tmp_path: Path) -> None:
    issue(tmp_path, 1)
    settings = ServerSettings(tls_certificate=tmp_path / "tls.crt", tls_key=tmp_path / "tls.key", tls_check=0.1)
    with served(settings=settings) as it:
        assert serial(it.port) == 1
        issue(tmp_path, 2)
        wait_until(lambda: serial(it.port) == 2, 10, "the new certificate")
        (tmp_path / "tls.crt").write_text("broken")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with httpx.Client(verify=context) as client:
            answer = client.post(f"https://127.0.0.1:{it.port}/v1/embeddings", json=BODY)
            assert answer.status_code == 200
        assert serial(it.port) == 2


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    from embedding_runtime.api.listening import check_certificate

    issue(tmp_path, 1)
    (tmp_path / "other").write_text("nothing")
    with pytest.raises(SettingsError, match="cannot be used"):
        check_certificate(tmp_path / "other", tmp_path / "tls.key")
    with pytest.raises(SettingsError, match="No such file"):
        check_certificate(tmp_path / "missing", tmp_path / "tls.key")


def test_without_a_host_both_families_are_listened_on() -> None:
    (sock,) = listen("", 0)
    with sock:
        port = sock.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port)).close()
        with pytest.raises(ListenError, match="the port is in use"):
            listen("", port)
    with pytest.raises(ListenError, match="the address is unknown"):
        listen("no.such.host.invalid", 0)


def test_draining_answers_what_arrives_and_closes_connections() -> None:
    with served() as it, httpx.Client(base_url=it.url) as client:
        assert client.get("/v1/health/ready").status_code == 200
        it.model.gate.clear()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(httpx.post, f"{it.url}/v1/embeddings", json=BODY, timeout=30)
            wait_until(lambda: len(it.server.server_state.tasks) > 0, 5, "a request in progress")
            it.server.handle_exit(15, None)
            ready = client.get("/v1/health/ready")
            assert (ready.status_code, ready.json()["message"]) == (503, "draining")
            assert ready.headers["retry-after"]
            assert client.get("/v1/health/live").status_code == 200
            late = pool.submit(httpx.post, f"{it.url}/v1/embeddings", json=BODY, timeout=30)
            wait_until(lambda: len(it.server.server_state.tasks) > 1, 5, "a late request")
            it.model.gate.set()
            for answer in (running.result(), late.result()):
                assert answer.status_code == 200
                assert answer.headers["connection"] == "close"
        wait_until(lambda: it.server.should_exit, 10, "the end")
        assert it.server.fatal is None


def test_a_drain_without_requests_goes_on_answering_for_a_while_whoever_probes() -> None:
    """Those who have not heard of it send on: the end is some quiet seconds later, but no probe puts it off."""
    settings = ServerSettings(drain_timeout=30, drain_quiet=1.0)
    with served(settings=settings) as it, httpx.Client() as probe:
        it.server.handle_exit(15, None)
        began = time.monotonic()
        wait_until(lambda: probe.get(f"{it.url}/v1/health/ready").status_code == 503, 5, "not ready")
        wait_until(lambda: time.monotonic() - began > 0.6, 5, "most of the time")
        late = httpx.post(f"{it.url}/v1/embeddings", json=BODY)
        answered = time.monotonic()
        assert (late.status_code, late.headers["connection"]) == (200, "close")

        def ended() -> bool:
            with contextlib.suppress(httpx.TransportError):
                probe.get(f"{it.url}/v1/health/ready")
            return it.server.should_exit

        wait_until(ended, 10, "the end")
        assert 0.9 < time.monotonic() - answered < 5
        assert it.server.fatal is None


def test_what_is_unanswered_at_the_drain_deadline_is_503() -> None:
    with served(settings=ServerSettings(drain_timeout=0.3)) as it, concurrent.futures.ThreadPoolExecutor() as pool:
        it.model.gate.clear()
        requests = [pool.submit(httpx.post, f"{it.url}/v1/embeddings", json=BODY, timeout=30) for _ in range(3)]
        wait_until(lambda: len(it.server.server_state.tasks) == 3, 5, "requests in progress")
        it.server.handle_exit(15, None)
        for answer in (request.result() for request in requests):
            assert (answer.status_code, answer.json()["type"]) == (503, "unavailable_error")
            assert answer.json()["message"] == "this replica is stopping; try again"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["connection"] == "close"
        assert it.server.fatal is None


@pytest.mark.parametrize("stage", ["body", "tokenising"])
def test_the_drain_deadline_is_503_at_every_stage(stage: str) -> None:
    body = json.dumps(BODY).encode() + b" " * 5000
    with served(settings=ServerSettings(drain_timeout=0.3)) as it, socket.create_connection(
        ("127.0.0.1", it.port)
    ) as connection:  # fmt: skip
        connection.settimeout(10)
        it.model.reading.clear()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + (body if stage == "tokenising" else body[:10]))
        wait_until(lambda: it.state.working, 5, "a request in progress")
        if stage == "tokenising":
            wait_until(lambda: it.model.preparing, 5, "a request being tokenised")
        it.server.handle_exit(15, None)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        top, _, answer = received.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 503 ")
        for header in (b"\r\nretry-after: ", b"\r\nx-request-id: ", b"\r\nconnection: close"):
            assert header in top
        assert json.loads(answer)["message"] == "this replica is stopping; try again"
        wait_until(lambda: not it.server.server_state.tasks, 5, "no request in progress")
        assert it.server.fatal is None


@pytest.fixture
def captured() -> Iterator[list[str]]:
    """What the JSON log holds."""
    lines: list[str] = []
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("embedding_runtime").level)
    set_up_logging(as_json=True, level="debug")
    handler = root.handlers[0]
    lock = threading.Lock()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with lock:
                lines.append(handler.format(record))

    root.handlers[:] = [Collect()]
    yield lines
    logging.captureWarnings(False)
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("embedding_runtime").setLevel(before[2])


def test_log_lines_name_the_request_and_hold_no_text_and_no_key(captured: list[str], tmp_path: Path) -> None:
    (tmp_path / "team-a").write_text("the-key")
    headers = {"x-request-id": "abc-1", "authorization": "Bearer the-key"}
    with served(keys=tmp_path) as it:
        assert httpx.post(f"{it.url}/v1/embeddings", json=BODY, headers=headers).status_code == 200
        assert (
            httpx.post(f"{it.url}/v1/embeddings", json=BODY, headers={"authorization": "Bearer wr0ng"}).status_code
            == 401
        )
        httpx.post(f"{it.url}/v1/embeddings", content=b'{"secret sentence', headers=headers)
        httpx.get(f"{it.url}/secret?key=the-key")
    parsed = [json.loads(line) for line in captured]
    ours = [line for line in parsed if line.get("request_id") == "abc-1"]
    assert any("POST /v1/embeddings 200" in line["message"] and "team-a" in line["message"] for line in ours)
    assert not any(word in line for line in captured for word in ("secret", "the-key", "wr0ng"))


def test_the_engines_death_is_told_everywhere() -> None:
    with served() as it:
        it.engine._shared.failure = "RuntimeError: gone"

        async def ask(path: str) -> httpx.Response:
            # Not over the socket: the server is about to close it.
            async with httpx.AsyncClient(transport=httpx.ASGITransport(it.app), base_url="http://x") as client:
                return await client.get(path)

        live, ready = asyncio.run(ask("/v1/health/live")), asyncio.run(ask("/v1/health/ready"))
        assert (live.status_code, live.json()["live"]) == (503, False)
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        wait_until(lambda: it.server.fatal is not None, 5, "the end")
        assert it.server.fatal is not None
        assert it.server.fatal.exit_status == 6
