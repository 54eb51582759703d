"""What the API server records about who set which field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_operator.observe.snapshot import Object

Fields = Mapping[str, Any]
"""Part of `managedFields[].fieldsV1`: `f:NAME` is a key, `k:{…}` a list entry by its keys, an empty mapping a leaf."""


def applied_fields(live: Object, manager: str) -> Fields | None:
    """What `manager` owns of a live object by apply; None when the object does not say."""
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return dict(entry.get("fieldsV1") or {})
    return None


def own_annotations(live: Object | None, manager: str) -> Mapping[str, str]:
    """The annotations that `manager` set and nobody has changed since; all, when the object has no such records."""
    metadata = (live or {}).get("metadata") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    if live is None or not metadata.get("managedFields"):
        return annotations
    owned = ((applied_fields(live, manager) or {}).get("f:metadata") or {}).get("f:annotations") or {}
    return {name: value for name, value in annotations.items() if f"f:{name}" in owned}
