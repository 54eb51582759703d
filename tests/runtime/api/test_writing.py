"""An answer's head and body are written at once."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from embedding_runtime.api.writing import HeadWithBody

from tests.runtime.api.served import Served, served


@pytest.fixture(scope="module")
def it() -> Iterator[Served]:
    with served() as running:
        yield running


class Recorder(asyncio.Transport):
    """A transport that remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[int]]) -> None:
        self.calls.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return "close" in self.calls

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class Cycle:
    """The part of uvicorn's cycle that is looked at."""

    transport: Recorder = field(default_factory=Recorder)
    response_started: bool = False


def test_head_and_body_are_one_write_and_what_follows_is_written_as_it_comes() -> None:
    cycle = Cycle()
    writer = HeadWithBody(cycle)  # type: ignore[arg-type]
    writer.write(b"100 ")
    cycle.response_started = True
    for part in (b"head ", b"body ", b"more ", b"and more"):
        writer.write(part)
    assert cycle.transport.calls == [b"100 ", b"head body ", b"more ", b"and more"]
    assert not writer.is_closing()


def test_a_head_that_waits_is_written_before_the_connection_closes() -> None:
    cycle = Cycle(response_started=True)
    writer = HeadWithBody(cycle)  # type: ignore[arg-type]
    writer.write(b"head")
    assert cycle.transport.calls == []
    writer.close()
    assert cycle.transport.calls == [b"head", "close"]
    assert writer.is_closing()


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 405)])
def test_an_answer_with_and_without_a_body_arrives_on_a_connection_that_stays(
    it: Served, method: str, status: int
) -> None:
    """A head that was kept for a body that never comes would never arrive."""
    with socket.create_connection(("127.0.0.1", it.port)) as connection:
        connection.settimeout(10)
        for _ in range(3):
            connection.sendall(f"{method} /v1/version HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            assert response.status == status
            assert len(response.read()) == (0 if method == "HEAD" else int(response.headers["content-length"]))
