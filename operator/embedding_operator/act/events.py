"""Kubernetes Events about an EmbeddingService, only where something changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from embedding_operator.act.outcome import Change
from embedding_operator.api.kinds import EVENTS
from embedding_operator.cluster import ClusterClient, ClusterError
from embedding_operator.observe.follow import Key

COMPONENT = "embedding-operator"
BURST = 25.0
"""So many Events of one service may come at once,"""
REFILL_INTERVAL = timedelta(seconds=60)
"""and one more in so much time, about as client-go's own recorder does it."""
REPEAT_INTERVAL = timedelta(seconds=60)
NOTE_BYTES = 1023
"""The API server admits notes of less than 1024 bytes, not characters."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One Event to post."""

    warning: bool
    reason: str
    action: str
    message: str


_STAGES = ("Starting", "Scaling", "NoPods", "NotObserved")
"""Reasons every start passes through in moments: worth a status, not an Event."""


def transitions(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> list[Notice]:
    """Notices for a `Ready` condition that changed its status or its reason. Pure."""
    old = {condition["type"]: condition for condition in before}.get("Ready")
    new = {condition["type"]: condition for condition in after}.get("Ready")
    if new is None or (old is not None and (old["status"], old["reason"]) == (new["status"], new["reason"])):
        return []
    if old is None and new["status"] != "False":
        return []
    if new["reason"] in _STAGES:
        return []
    calm = ("RollingOut", "ModelLoading", "ModelDownloading", "Suspended")
    warning = new["status"] != "True" and new["reason"] not in calm
    return [Notice(warning, new["reason"], "Reconcile", new["message"] or new["reason"])]


def of_changes(changes: Iterable[Change]) -> list[Notice]:
    """One notice for all children that were created, one for those repaired, one for those deleted. Pure."""
    names: dict[str, list[str]] = {}
    for change in changes:
        names.setdefault(change.verb, []).append(f"{change.kind}/{change.name}")
    return [
        Notice(False, verb.capitalize(), verb.capitalize(), f"{', '.join(of)} {verb}") for verb, of in names.items()
    ]


@dataclass(slots=True)
class _Bucket:
    """What one service may still post, and what it posted last."""

    left: float
    filled_at: datetime
    posted: dict[tuple[str, str], datetime] = field(default_factory=dict)


@dataclass(slots=True)
class Throttle:
    """Bounds the Events of each service: one that flaps, or that somebody else changes back again and again, must not
    fill the API server's store. The same words are worth one Event a minute; different ones are counted."""

    _buckets: dict[Key, _Bucket] = field(default_factory=dict)

    def admit(self, key: Key, notices: Iterable[Notice], now: datetime) -> list[Notice]:
        """Those that may be posted now."""
        bucket = self._buckets.setdefault(key, _Bucket(BURST, now))
        gained = (now - bucket.filled_at) / REFILL_INTERVAL
        bucket.left, bucket.filled_at = min(BURST, bucket.left + max(0.0, gained)), now
        bucket.posted = {words: at for words, at in bucket.posted.items() if now - at < REPEAT_INTERVAL}
        admitted = []
        for notice in notices:
            words = (notice.reason, notice.message)
            if words in bucket.posted or bucket.left < 1:
                continue
            bucket.left -= 1
            bucket.posted[words] = now
            admitted.append(notice)
        return admitted

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._buckets.pop(key, None)

    def clear(self) -> None:
        """Somebody else posts from now on."""
        self._buckets.clear()


def within(text: str, most: int) -> str:
    """The text's beginning, of at most so many bytes. Pure."""
    return text.encode()[:most].decode("utf-8", "ignore")


async def post(
    cluster: ClusterClient, resource: Mapping[str, Any], notices: Iterable[Notice], *, instance: str, now: datetime
) -> None:
    """Post Events. They are a courtesy: one that cannot be posted is dropped."""
    metadata = resource["metadata"]
    for notice in notices:
        body = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if notice.warning else "Normal",
            "reason": notice.reason,
            "action": notice.action,
            "note": within(notice.message, NOTE_BYTES),
            "reportingController": f"{COMPONENT}.io/controller",
            "reportingInstance": instance,
            "regarding": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }
        try:
            await cluster.create(EVENTS, body)
        except ClusterError:
            return
