"""Writes `status` by server-side apply, and only when it says something new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.api.constants import FIELD_MANAGER
from embedding_operator.api.kinds import EMBEDDING_SERVICES
from embedding_operator.cluster import ClusterClient, ClusterError, Object

STATUS_MANAGER = f"{FIELD_MANAGER}-status"


async def write_status(cluster: ClusterClient, resource: Mapping[str, Any], status: Mapping[str, Any]) -> Object | None:
    """Write `status` to the resource it was judged from; the resource after it, or None when nothing was written.

    The uid is a precondition: a resource that was deleted and created again meanwhile is another one and gets nothing.
    A resource that is gone is no error. Raises ClusterError otherwise.
    """
    if dict(resource.get("status") or {}) == dict(status):
        return None
    metadata = resource["metadata"]
    body = {
        "apiVersion": EMBEDDING_SERVICES.api_version,
        "kind": EMBEDDING_SERVICES.kind,
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": dict(status),
    }
    try:
        return await cluster.apply(EMBEDDING_SERVICES, body, manager=STATUS_MANAGER, force=True, subresource="status")
    except ClusterError as error:
        if not (error.not_found or error.conflict):
            raise
        return None
