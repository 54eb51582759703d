"""What applying a file would change: each child before and after, by a dry run of the API server."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from embedding_operator.act.children import foreign, is_foreign, leftovers, stamped
from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.api.kinds import BY_KIND, EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient
from embedding_operator.commands.manifests import parsed
from embedding_operator.control.plan import OperatorIdentity, plan
from embedding_operator.observe.snapshot import Object, Snapshot
from embedding_operator.render import inventory

_NOISE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def _shown(live: Mapping[str, Any] | None) -> list[str]:
    """An object as lines, without what changes by itself."""
    if live is None:
        return []
    metadata = {key: value for key, value in live["metadata"].items() if key not in _NOISE}
    body = {**live, "metadata": metadata}
    body.pop("status", None)
    return yaml.safe_dump(body, sort_keys=True, width=120).splitlines(keepends=True)


def unified(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, name: str) -> str:
    """The unified diff of two objects; empty when they are the same. Pure."""
    return "".join(difflib.unified_diff(_shown(before), _shown(after), f"live/{name}", f"wanted/{name}"))


def _left_alone(name: str) -> str:
    return (
        f"# {name} exists and does not belong to this EmbeddingService: it would not be touched, and the service be "
        "told NameTaken. Rename one of them.\n"
    )


async def _snapshot(cluster: ClusterClient, resource: dict[str, Any]) -> Snapshot:
    """The resource as it would be after applying the file, with the children there are now."""
    metadata = resource["metadata"]
    live = await cluster.get(EMBEDDING_SERVICES, metadata["namespace"], metadata["name"])
    # One that is not there yet has no uid: whatever exists belongs to somebody else.
    merged = {**resource, "metadata": live["metadata"] if live is not None else {**metadata, "uid": ""}}
    children: dict[tuple[str, str, str], Object] = {}
    for kind, name in inventory(metadata["name"]):
        child = await cluster.get(kind, metadata["namespace"], name)
        if child is not None:
            children[kind.api_version, kind.kind, name] = child
    return Snapshot(resource=merged, now=datetime.now(UTC), children=children)


async def differences_in_cluster(
    cluster: ClusterClient, resource: dict[str, Any], operator: OperatorIdentity
) -> list[str]:
    """A unified diff for each child that would be created, changed or deleted; a comment for each name that is taken.

    Raises UnusableFile for a faulty resource and ClusterError when the API server cannot be asked or refuses.
    """
    snapshot = await _snapshot(cluster, resource)
    children = plan(parsed(snapshot.resource), snapshot, operator).children
    taken = foreign(children, snapshot)
    found = [_left_alone(name) for name in taken]
    if taken and snapshot.deployment is None:
        return found  # nothing is begun
    for child in children:
        if is_foreign(child, snapshot):
            continue
        body = stamped(child)
        live = snapshot.child(child["apiVersion"], child["kind"], child["metadata"]["name"])
        kind = BY_KIND[child["apiVersion"], child["kind"]]
        after = await cluster.apply(kind, body, manager=FIELD_MANAGER, force=True, dry_run=True)
        found.append(unified(live, after, f"{child['kind']}/{child['metadata']['name']}"))
    gone = leftovers(children, snapshot)
    found += [unified(live, None, f"{live['kind']}/{live['metadata']['name']}") for live in gone]
    return [text for text in found if text]
