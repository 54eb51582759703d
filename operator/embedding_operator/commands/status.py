"""One EmbeddingService for a person: conditions, Pods, identity and load in a page of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from embedding_operator.api import parse
from embedding_operator.api.constants import SERVICE_LABEL
from embedding_operator.api.kinds import EMBEDDING_SERVICES, PODS
from embedding_operator.cluster import ClusterClient
from embedding_operator.errors import InvalidSpec
from embedding_operator.judge.pods import pod_problem
from embedding_operator.observe.pods import parse_time, pod_state
from embedding_operator.observe.snapshot import PodState

MARKS = {"True": "✓", "False": "✗", "Unknown": "?"}
CALM = {"RolledOut": "✓", "AutoscalingOff": "-"}
"""Reasons whose condition is not True and yet nothing is wrong."""
HIDDEN = ("Reconciling", "Stalled")
"""For tools; they repeat what Ready says."""


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


def _accelerator(resource: Mapping[str, Any]) -> str | None:
    """The extended resource that the service asks for; None without one, or where the spec is not understood."""
    try:
        asked = parse(resource).spec.accelerator.effective_resource
    except InvalidSpec:
        return None
    return asked.name if asked is not None else None


def _pod_row(pod: PodState, status: Mapping[str, Any], accelerator: str | None, now: datetime) -> list[str]:
    restarts = sum(container.restarts for container in pod.containers)
    problem = pod_problem(pod, None, now, accelerator)
    state = "ready" if problem is None else "starting" if problem.waiting else problem.reason.value
    if pod.terminating:
        state = "stopping"
    return [pod.name, state, str(restarts), pod.node or "-", age(pod.created, now), _why(pod, status)]


def _why(pod: PodState, status: Mapping[str, Any]) -> str:
    """What the status says about this Pod: its problem, or how far it has come with loading."""
    told = [entry["message"] for entry in status.get("problems") or () if entry["pod"] == pod.name]
    for entry in status.get("conditions") or ():
        _, named, rest = str(entry.get("message", "")).partition(f"Pod {pod.name}: ")
        told += [rest] if named else []
    return told[0] if told else ""


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _headline(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    ready = next((entry for entry in status.get("conditions") or () if entry["type"] == "Ready"), None)
    state = "not seen by the operator yet"
    if ready is not None:
        state = "ready" if ready["status"] == "True" else f"not ready: {ready['reason']}"
        state += f", {status.get('readyReplicas', 0)} of {status.get('replicas', 0)} Pods"
    return [f"{metadata['namespace']}/{metadata['name']}: {state}", f"  {status.get('url', 'no URL yet')}", ""]


def page(resource: Mapping[str, Any], pods: Sequence[PodState], now: datetime) -> str:
    """The page of text."""
    status: Mapping[str, Any] = resource.get("status") or {}
    metadata = resource["metadata"]
    lines = _headline(metadata, status)
    conditions = [
        [
            f"  {CALM.get(entry['reason'], MARKS.get(entry['status'], '?'))} {entry['type']}",
            entry["reason"],
            age(parse_time(entry["lastTransitionTime"]), now),
            entry.get("message", ""),
        ]
        for entry in status.get("conditions") or ()
        if entry["type"] not in HIDDEN
    ]
    lines += ["Conditions", *(table(conditions) or ["  none: the operator has not seen it yet"]), ""]
    accelerator = _accelerator(resource)
    rows = [
        ["NAME", "STATE", "RESTARTS", "NODE", "AGE", ""],
        *(_pod_row(pod, status, accelerator, now) for pod in pods),
    ]
    lines += ["Pods", *((f"  {row}".rstrip() for row in table(rows)) if pods else ["  none"])]
    for title, key in (("Model", "model"), ("Runtime", "runtime"), ("Load", "load")):
        entries = status.get(key) or {}
        if entries:
            lines += ["", title, *table([f"  {name}", _shown(value)] for name, value in entries.items())]
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
        await cluster.list(
            EMBEDDING_SERVICES, namespace, fields=f"metadata.name={name}"
        )  # raises where there is no such kind at all
        return None
    pods, _ = await cluster.list(PODS, namespace, labels=f"{SERVICE_LABEL}={name}")
    return page(resource, [pod_state(pod) for pod in pods], datetime.now(UTC))
