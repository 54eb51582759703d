"""The harness's end of a load process: starts it, gives it jobs, samples the server at both ends of the window."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.errors import BenchError
from bench.jobs import BEGIN, END, Job, Tally

T = TypeVar("T")
_REPOSITORY = Path(__file__).parent.parent


class Driver:
    """A process that does jobs one after the other: the load generator, or the in-process forward."""

    def __init__(self, module: str, arguments: Sequence[str] = (), *, patience: float = 180.0) -> None:
        self._module = module
        self._patience = patience
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_REPOSITORY,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def wait_for(self, word: str, patience: float | None = None) -> None:
        """Wait for a word of its protocol. Raises BenchError when it ends, says another, or says nothing."""
        said = self.next_line(patience)
        if said != word:
            raise BenchError(f"{self._module} said {said[:200]!r} where {word!r} was expected; what it wrote is above")

    def next_line(self, patience: float | None = None) -> str:
        """The next line it writes. Raises BenchError after so many seconds of silence."""
        try:
            return self._lines.get(timeout=patience or self._patience)
        except queue.Empty:
            raise BenchError(
                f"{self._module} was silent for {patience or self._patience:.0f} s: the server under test does not "
                "answer; see its log (the directory of logs is printed at the start)"
            ) from None

    def give(self, job: Job) -> None:
        """Start a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(job.line())
        self._process.stdin.flush()

    def run(self, job: Job, sample: Callable[[], T]) -> tuple[Tally, T, T]:
        """Do a job; `sample` is taken when the window opens and when it closes."""
        self.give(job)
        self.wait_for(BEGIN)
        before = sample()
        self.wait_for(END, self._patience + job.seconds)
        after = sample()
        return Tally.parse(self.next_line()), before, after

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
