"""`python -m bench.generator`: the load process. Reads jobs from stdin (bench/jobs.py) and reports on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import uvloop

from bench.connection import Answer, Call, Connection, connect, message
from bench.jobs import BEGIN, END, Job, Tally
from bench.texts import vocabulary
from bench.workloads import body, requests

_DRAIN_SECONDS = 30.0
_BACK_OFF_SECONDS = 0.05


class Window:
    """Counts answers from the first one after the warm-up to the first one after `seconds` more."""

    def __init__(self, job: Job, report: TextIO) -> None:
        self._opens = time.perf_counter() + job.warmup
        self._seconds = job.seconds
        self._report = report
        self._began: float | None = None
        self._cpu = 0.0
        self._answers: list[Answer] = []
        self.closed = asyncio.Event()

    def add(self, answer: Answer) -> None:
        """Count an answer when it falls into the window."""
        if self.closed.is_set():
            return
        if self._began is None:
            if answer.ended >= self._opens:
                self._began, self._cpu = answer.ended, time.process_time()
                self._say(BEGIN)
            return
        self._answers.append(answer)
        if answer.ended - self._began >= self._seconds:
            self._say(END)
            self._cpu = time.process_time() - self._cpu
            self.closed.set()

    def _say(self, word: str) -> None:
        print(word, file=self._report, flush=True)

    def tally(self) -> Tally:
        """The sum of it all, once closed."""
        assert self._began is not None
        good = [answer for answer in self._answers if answer.status == 200]
        return Tally(
            seconds=self._answers[-1].ended - self._began,
            texts=sum(answer.texts for answer in good),
            latencies=[answer.seconds for answer in good],
            refusals=[answer.seconds for answer in self._answers if answer.status == 429],
            statuses=dict(Counter(str(answer.status) for answer in self._answers)),
            generator_cpu_seconds=self._cpu,
            response_bytes=sum(answer.size for answer in good),
        )


class Load:
    """Sends the calls of a job and gives the answers to its window."""

    def __init__(self, job: Job, window: Window) -> None:
        self._job = job
        self._window = window
        self._messages = _messages(job)
        self._idle: deque[Connection] = deque()
        self._waiting: deque[Call] = deque()
        self._connections = 0
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the window closed and what was in flight is answered."""
        if self._job.rate is None:
            for _ in range(self._job.concurrency):
                self._send(self._next_call(time.perf_counter()))
            await self._window.closed.wait()
        else:
            await self._arrivals(self._job.rate)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), _DRAIN_SECONDS)
        for connection in self._idle:
            connection.close()
        for task in self._tasks:
            task.cancel()

    async def _arrivals(self, rate: float) -> None:
        source = random.Random(self._job.seed)
        due = time.perf_counter()
        while not self._window.closed.is_set():
            due += source.expovariate(rate)
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            self._send(self._next_call(due))

    def _next_call(self, due: float) -> Call:
        wire, size = next(self._messages)
        return Call(wire, size, due)

    def _send(self, call: Call) -> None:
        self._in_flight += 1
        self._quiet.clear()
        while self._idle:
            connection = self._idle.popleft()
            if connection.open:
                connection.send(call)
                return
            self._connections -= 1
        self._waiting.append(call)
        if self._connections < self._job.connections:
            self._connections += 1
            task = asyncio.ensure_future(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            connection = await connect(self._job.host, self._job.port, self._answered)
        except OSError:
            self._connections -= 1
            call = self._waiting.popleft()
            self._count(Answer(call.due, time.perf_counter(), 0, 0, call.texts))
            return
        self._take(connection)

    def _take(self, connection: Connection) -> None:
        """Put a free connection to work, or aside."""
        if not connection.open:
            self._connections -= 1
        elif self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _answered(self, connection: Connection, answer: Answer) -> None:
        self._take(connection)
        self._count(answer)

    def _count(self, answer: Answer) -> None:
        self._in_flight -= 1
        self._window.add(answer)
        if not self._in_flight:
            self._quiet.set()
        if self._job.rate is not None or self._window.closed.is_set():
            return
        if answer.status == 200:
            self._again()
        else:
            asyncio.get_running_loop().call_later(_BACK_OFF_SECONDS, self._again)

    def _again(self) -> None:
        if not self._window.closed.is_set():
            self._send(self._next_call(time.perf_counter()))


def _messages(job: Job) -> Iterator[tuple[bytes, int]]:
    """Whole HTTP messages with the number of texts in each, over and over."""
    made = [
        (message(job.path, job.host, job.port, body(job, texts)), len(texts))
        for texts in requests(job, vocabulary(Path(job.model)))
    ]
    return itertools.cycle(made)


async def generate(job: Job, report: TextIO) -> Tally:
    """Do one job. Says on `report` when the window opens and closes."""
    load = Load(job, window := Window(job, report))
    await load.run()
    return window.tally()


def main() -> None:
    """One job per line of stdin, until it ends."""
    for line in sys.stdin:
        tally = uvloop.run(generate(Job.parse(line), sys.stdout))
        print(tally.line(), flush=True)


if __name__ == "__main__":
    main()
