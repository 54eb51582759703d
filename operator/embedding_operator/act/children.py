"""Rendered children beside those in the cluster: which are ours, which are foreign, what has to be repaired. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from embedding_operator.act.difference import differences
from embedding_operator.act.ownership import lost
from embedding_operator.api.constants import FIELD_MANAGER, KIND
from embedding_operator.cluster import Object
from embedding_operator.observe.snapshot import Snapshot, is_controlled_by

APPLIED_ANNOTATION = "embedding-operator.io/applied"
"""On every child: a hash of what was rendered. It tells a field that is no longer rendered from one never rendered."""


def key_of_child(body: Mapping[str, Any]) -> tuple[str, str, str]:
    return body["apiVersion"], body["kind"], body["metadata"]["name"]


def stamped(body: Mapping[str, Any]) -> Object:
    """The rendered child with the hash of itself as an annotation."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    metadata = body["metadata"]
    stamp = {APPLIED_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return {**body, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **stamp}}}


def foreign(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[str, ...]:
    """The rendered children whose name somebody else's object has, as `Kind/name`."""
    return tuple(f"{body['kind']}/{body['metadata']['name']}" for body in rendered if is_foreign(body, snapshot))


def is_foreign(body: Mapping[str, Any], snapshot: Snapshot) -> bool:
    live = snapshot.children.get(key_of_child(body))
    return live is not None and not is_controlled_by(live, snapshot.uid)


def leftovers(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[Mapping[str, Any], ...]:
    """Our own live children that are no longer rendered."""
    wanted = {key_of_child(body) for body in rendered}
    return tuple(
        live
        for key, live in snapshot.children.items()
        if key not in wanted and is_controlled_by(live, snapshot.uid) and "deletionTimestamp" not in live["metadata"]
    )


def terminating(rendered: Iterable[Mapping[str, Any]], snapshot: Snapshot) -> tuple[str, ...]:
    """The rendered children whose name is still taken by an object of an earlier EmbeddingService of this name, or of
    our own, that is being deleted, as `Kind/name`, with the finalizers that hold it. They make room by themselves."""
    return tuple(
        f"{body['kind']}/{body['metadata']['name']}{_held(snapshot.children[key_of_child(body)])}"
        for body in rendered
        if is_terminating(body, snapshot)
    )


def is_terminating(body: Mapping[str, Any], snapshot: Snapshot) -> bool:
    live = snapshot.children.get(key_of_child(body))
    return live is not None and ("deletionTimestamp" in live["metadata"] or _is_orphan(live, snapshot))


def _held(live: Mapping[str, Any]) -> str:
    finalizers = [it for it in live["metadata"].get("finalizers") or () if it != "foregroundDeletion"]
    return f" (held by the finalizer {', '.join(finalizers)})" if finalizers else ""


def _is_orphan(live: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Whether its controller was an EmbeddingService of the same name that is no more: the garbage collector's."""
    return any(
        reference.get("controller")
        and reference.get("kind") == KIND
        and reference.get("name") == snapshot.name
        and reference.get("uid") != snapshot.uid
        for reference in live["metadata"].get("ownerReferences") or ()
    )


def without_rival_ports(body: Mapping[str, Any], live: Mapping[str, Any]) -> Object | None:
    """A merge patch that leaves only our own ports, or None where there are no others. Pure.

    Ports are told apart by their number. Who changes a number by hand has, for server-side apply, added another port
    with our port's name, and no name may be there twice: applying ours beside it is refused.
    """
    if body["kind"] == "Service" and live["spec"].get("ports") != body["spec"]["ports"]:
        return {"spec": {"ports": body["spec"]["ports"]}}
    if body["kind"] != "Deployment":
        return None
    ours = {it["name"]: it["ports"] for it in body["spec"]["template"]["spec"]["containers"] if "ports" in it}
    containers = live["spec"]["template"]["spec"]["containers"]
    mended = [{**it, "ports": ours[it["name"]]} if it["name"] in ours else it for it in containers]
    return {"spec": {"template": {"spec": {"containers": mended}}}} if mended != containers else None


def to_repair(body: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of rendered fields that have another value, or that somebody else has set since we did."""
    return tuple(dict.fromkeys((*differences(body, live), *lost(body, live, FIELD_MANAGER))))
