"""How long health probes wait while a model is loading: starts the server several times and probes it every 20 ms.

    .venv/bin/python tools/probe_latency.py DIRECTORY [STARTS]

Prints, for every start and for all of them, the number of probes and their median, 99th percentile and maximum in
milliseconds, and what the server last said it was doing before the longest one. Each probe opens a connection of its
own, as the kubelet does.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

PERIOD = 0.02
GIVE_UP = 300.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One answered probe: when it began, in seconds since the port opened, and how long it took, in seconds."""

    began: float
    took: float
    doing: str


def probe(port: int) -> tuple[float, int]:
    """Seconds one GET of the live endpoint takes, with its connection, and the status."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/v1/health/live")
        response = connection.getresponse()
        response.read()
        return time.perf_counter() - began, response.status
    finally:
        connection.close()


def readiness(port: int) -> tuple[bool, str]:
    """Whether the server is ready, and its words."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/v1/health/ready")
        answer = json.loads(connection.getresponse().read())
        return bool(answer["ready"]), str(answer["message"])
    finally:
        connection.close()


def start(model: str, cache: str) -> list[Probe]:
    """Load the model in a fresh process with an empty cache, probing until it is ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EMBEDDING_", "NIM_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "embedding_runtime", "serve", "--model", model, "--cache-dir", cache,
         "--host", "127.0.0.1", "--port", "0", "--device", "Cpu"],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        port = next((int(m[1]) for line in process.stderr if (m := re.search(r"listens on \[.*\]:(\d+)", line))), None)
        if port is None:
            raise SystemExit("the server did not start; see what `embedding-runtime serve` says")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return watch(port)
    finally:
        process.kill()
        process.wait()


def watch(port: int) -> list[Probe]:
    """Probe every 20 ms until the server is ready."""
    opened = time.perf_counter()
    probes: list[Probe] = []
    ready, doing = False, "starting"
    while not ready:
        began = time.perf_counter()
        if began - opened > GIVE_UP:
            raise SystemExit(f"not ready after {GIVE_UP:.0f} s: {doing}")
        took, status = probe(port)
        if status != 200:
            raise SystemExit(f"the live endpoint answered {status}")
        probes.append(Probe(began - opened, took, doing))
        ready, doing = readiness(port)
        time.sleep(max(0.0, PERIOD - (time.perf_counter() - began)))
    return probes


def summary(name: str, probes: list[Probe]) -> str:
    """One line about some probes; times in milliseconds."""
    times = sorted(probe.took * 1000 for probe in probes)
    worst = max(probes, key=lambda probe: probe.took)
    over = sum(took > 100 for took in times)
    return (
        f"{name:<8} {len(times):>5} probes  p50 {times[len(times) // 2]:6.1f}  p99 {times[int(len(times) * 0.99)]:6.1f}"
        f"  max {times[-1]:6.1f} ms  over 100 ms: {over}  (longest at {worst.began:.1f} s, after: {worst.doing})"
    )


def main() -> None:
    """Measure and print."""
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    every: list[Probe] = []
    for number in range(int(sys.argv[2]) if len(sys.argv) == 3 else 5):
        with tempfile.TemporaryDirectory() as cache:
            probes = start(sys.argv[1], cache)
        every += probes
        print(summary(f"start {number + 1}", probes), flush=True)
    print(summary("all", every))


if __name__ == "__main__":
    main()
