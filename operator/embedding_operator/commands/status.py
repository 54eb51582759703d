"""One EmbeddingService for a person: conditions, Pods, identity and load in a page of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import EMBEDDING_SERVICES, PODS
from embedding_operator.cluster import ClusterClient
from embedding_operator.observe.pods import parse_time, pod_state
from embedding_operator.observe.snapshot import PodState

MARKS = {"True": "✓", "False": "✗", "Unknown": "?"}


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as aligned columns; the last column is not padded."""
    rows = [list(row) for row in rows]
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def age(since: datetime | None, now: datetime) -> str:
    """A duration as people say it: 42s, 5m, 3h, 2d."""
    if since is None:
        return "-"
    seconds = max(0, int((now - since).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _pod_row(pod: PodState, now: datetime) -> list[str]:
    restarts = sum(container.restarts for container in pod.containers)
    state = "stopping" if pod.terminating else "ready" if pod.ready else pod.phase.lower()
    return [pod.name, state, f"{restarts} restarts", pod.node or "no node", age(pod.created, now)]


def page(resource: Mapping[str, Any], pods: Sequence[PodState], now: datetime) -> str:
    """The page of text."""
    status: Mapping[str, Any] = resource.get("status") or {}
    metadata = resource["metadata"]
    lines = [f"{metadata['namespace']}/{metadata['name']}", f"  {status.get('url', 'no URL yet')}", ""]
    conditions = [
        [
            f"  {MARKS.get(entry['status'], '?')} {entry['type']}",
            entry["reason"],
            age(parse_time(entry["lastTransitionTime"]), now),
            entry.get("message", ""),
        ]
        for entry in status.get("conditions") or ()
    ]
    lines += ["Conditions", *(table(conditions) or ["  none: the operator has not seen it yet"]), ""]
    lines += ["Pods", *(f"  {row}" for row in table(_pod_row(pod, now) for pod in pods)), *([] if pods else ["  none"])]
    for title, key in (("Model", "model"), ("Runtime", "runtime"), ("Load", "load")):
        entries = status.get(key) or {}
        if entries:
            lines += ["", title, *table([f"  {name}", str(value)] for name, value in entries.items())]
    problems = status.get("problems") or ()
    if problems:
        lines += ["", "Problems", *(f"  {entry['pod']}: {entry['reason']}: {entry['message']}" for entry in problems)]
    generation, observed = metadata.get("generation"), status.get("observedGeneration")
    if generation != observed:
        lines += ["", f"The status speaks of generation {observed}; the spec is at {generation}."]
    return "\n".join(lines)


async def status_page(cluster: ClusterClient, namespace: str, name: str) -> str | None:
    """The page of a service in the cluster; None when there is no such service. Raises ClusterError."""
    resource = await cluster.get(EMBEDDING_SERVICES, namespace, name)
    if resource is None:
        return None
    pods, _ = await cluster.list(PODS, namespace, labels=f"{SERVICE_LABEL}={name}")
    return page(resource, [pod_state(pod) for pod in pods], datetime.now(UTC))
