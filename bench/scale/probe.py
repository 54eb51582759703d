"""What can be read of a running operator: its own metrics, its process, the API server's audit log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

WRITES = ("create", "update", "patch", "delete")
_RECONCILES = "embedding_operator_reconcile_seconds_bucket"


def reconciles(url: str) -> dict[float, float]:
    """The operator's histogram of reconcile times: upper bound in seconds -> cumulative count.

    Raises httpx.HTTPError.
    """
    text = httpx.get(url, timeout=30, trust_env=False).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {float(sample.labels["le"]): sample.value for sample in samples if sample.name == _RECONCILES}


def since(before: Mapping[float, float], now: Mapping[float, float]) -> dict[float, float]:
    """A histogram of what came after `before`. Pure."""
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def between(events: Iterable[Mapping[str, Any]], begin: float, end: float) -> list[Mapping[str, Any]]:
    """The completed requests about resources received in a time (Unix seconds), watches and the Lease aside. Pure."""
    return [
        event
        for event in events
        if event["stage"] == "ResponseComplete"
        and event["verb"] != "watch"
        and event.get("objectRef", {}).get("resource") not in (None, "leases")
        and begin < _epoch(event["requestReceivedTimestamp"]) <= end
    ]


def by_name(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Requests by `verb resource`. Pure."""
    return Counter(f"{event['verb']} {event['objectRef']['resource']}" for event in events)


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def operator_pid(address: str) -> int | None:
    """The operator's process: the largest of that program that talks to the API server at this address."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_operator = any(part.endswith("embedding-operator") for part in process.cmdline())
            if is_operator and process.environ().get("KUBERNETES_SERVICE_HOST") == address:
                found.append((process.memory_info().rss, process.pid))
    return max(found)[1] if found else None


def memory(pid: int) -> tuple[float, float]:
    """Resident memory now and at its highest, in MiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    now, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return round(now, 1), round(peak, 1)


def cpu_seconds(pid: int) -> float:
    """Processor time used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
