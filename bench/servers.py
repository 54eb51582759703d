"""Servers under test as processes: start, wait, stop the clock of those that are not measured, read what they used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import httpx
import orjson
import psutil

from bench.errors import BenchError
from bench.workloads import MODEL_NAME

_MEGABYTE = 1_000_000
_START_TIMEOUT = 300.0
_POLL_SECONDS = 0.02
# Variables that would decide for a server what it decides by default.
_DECIDING = ("EMBEDDING_", "NIM_", "INFINITY_", "OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_")


class Role(StrEnum):
    """What a server's figures are for."""

    OURS = "ours"
    BESIDE = "beside"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How to run a server. `{port}` in the command stands for the port. The paths are those of HTTP."""

    name: str
    title: str
    role: Role
    command: tuple[str, ...]
    ready_path: str
    path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server used until now: processor seconds of all its processes and threads, and when this was read."""

    cpu_seconds: float
    machine_busy_seconds: float
    own_cpu_seconds: float
    steal_seconds: float
    at: float


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ServerProcess:
    """A running server. Its output goes to a log file."""

    def __init__(self, spec: ServerSpec, logs: Path) -> None:
        self.spec = spec
        self.port = free_port()
        self.log = logs / f"{spec.name}.log"
        self._log: TextIO = self.log.open("a")
        # A peer's environment is its own; our checkout's modules are nothing to it.
        decided = (*_DECIDING, "PYTHONPATH") if spec.role is Role.PEER else _DECIDING
        kept = {name: value for name, value in os.environ.items() if not name.startswith(decided)}
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [part.replace("{port}", str(self.port)) for part in spec.command],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=kept | dict(spec.environment),
            start_new_session=True,
        )
        self._root = psutil.Process(self._process.pid)
        self.start_seconds = float("nan")
        self.peak_rss = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """Wait until it answers with vectors; `start_seconds` is how long that took. Raises BenchError."""
        deadline = self.started + _START_TIMEOUT
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._is_ready(client):
                if self._process.poll() is not None:
                    raise BenchError(f"{self.spec.title} ended with status {self._process.returncode}; see {self.log}")
                if time.perf_counter() > deadline:
                    raise BenchError(f"{self.spec.title} was not ready within {_START_TIMEOUT:.0f} s; see {self.log}")
                time.sleep(_POLL_SECONDS)
            self.embed(["ready"], client)
        self.start_seconds = time.perf_counter() - self.started

    def _is_ready(self, client: httpx.Client) -> bool:
        try:
            return client.get(self.url + self.spec.ready_path).status_code == 200
        except httpx.TransportError:
            return False

    def embed(self, texts: list[str], client: httpx.Client | None = None) -> list[list[float]]:
        """Vectors of texts. Raises BenchError when it refuses."""
        content = orjson.dumps({"model": MODEL_NAME, "input": texts})
        with client_or_new(client) as http:
            answer = http.post(self.url + self.spec.path, content=content, headers={"content-type": "application/json"})
        if answer.status_code != 200:
            raise BenchError(f"{self.spec.title} answered {answer.status_code}: {answer.text[:300]}; see {self.log}")
        rows = sorted(answer.json()["data"], key=lambda row: row["index"])
        return [row["embedding"] for row in rows]

    def processes(self) -> list[psutil.Process]:
        """The process and all it started."""
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise BenchError(f"{self.spec.title} is gone; see {self.log}") from None

    def cpu_seconds(self) -> float:
        """Processor seconds of all its processes."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def usage(self) -> Usage:
        """What it, this process and the whole machine used until now."""
        machine = psutil.cpu_times()
        busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
        return Usage(self.cpu_seconds(), busy, time.process_time(), machine.steal, time.perf_counter())

    def rss_megabytes(self) -> float:
        """Resident memory of all its processes, in units of 10^6 bytes."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / _MEGABYTE

    @contextmanager
    def watching_memory(self) -> Iterator[None]:
        """Keep `peak_rss` up to date while the block runs."""
        done = threading.Event()

        def watch() -> None:
            while True:
                with suppress(BenchError):
                    self.peak_rss = max(self.peak_rss, self.rss_megabytes())
                if done.wait(0.5):
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def pause(self) -> None:
        """Stop all its threads: even an idle server's spinning threads would disturb the one that is measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """End it and all it started."""
        with suppress(BenchError):
            for process in reversed(self.processes()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._log.close()


@contextmanager
def client_or_new(client: httpx.Client | None) -> Iterator[httpx.Client]:
    """The given client, or one for this block."""
    if client is not None:
        yield client
    else:
        with httpx.Client(timeout=60, trust_env=False) as new:
            yield new
