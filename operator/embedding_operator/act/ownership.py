"""Which rendered fields of a live object our field manager has lost. Pure.

Server-side apply records who set each field. Whoever changes a field of ours takes it from us, also where the change
cannot be told by comparing values: an entry added to a selector, say, which is one field as a whole. What others added
beside our fields is theirs and not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedding_operator.observe.managed_fields import Fields, applied_fields

_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.uid")
"""Never recorded as owned."""

_EMPTY: tuple[Any, ...] = (None, "", {}, [])
"""What the API server may leave out instead of storing it."""


def lost(wanted: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> Iterator[str]:
    """Paths of rendered fields that `manager` does not own any more. None when the object has no managed fields."""
    owned = applied_fields(live, manager)
    if owned is None:
        if live["metadata"].get("managedFields"):
            yield "."
        return
    yield from (path for path in _lost(wanted, owned, "") if path.lstrip(".") not in _IDENTITY)


def _lost(wanted: Any, owned: Fields, path: str) -> Iterator[str]:
    below = {key: value for key, value in owned.items() if key != "."}
    if not below:
        return  # ours as a whole
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            part = owned.get(f"f:{key}")
            if part is None and value not in _EMPTY:
                yield f"{path}.{key}"
            elif part is not None:
                yield from _lost(value, part, f"{path}.{key}")
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        entries = [(json.loads(key[2:]), value) for key, value in below.items() if key.startswith("k:")]
        for index, entry in enumerate(wanted):
            part = _entry(entry, entries)
            if part is None and entries:
                yield f"{path}[{index}]"
            elif part is not None:
                yield from _lost(entry, part, f"{path}[{index}]")


def _entry(wanted: Any, entries: Sequence[tuple[Any, Fields]]) -> Fields | None:
    """The owned part of a list entry. Keys that were left to defaults (a port's protocol) are not compared."""
    if not isinstance(wanted, Mapping):
        return None
    for keys, fields in entries:
        if all(wanted.get(name, value) == value for name, value in keys.items()):
            return fields
    return None
