"""Whether a live object still is what was rendered. Pure.

The API server completes objects with defaults and stores quantities in a canonical form, so "equal" means: every field
we render has the value we rendered. Lists of named things (containers, ports, env, volumes) are matched by name,
because others (a service mesh, a sidecar injector) may add entries of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from kubernetes.utils.quantity import parse_quantity

_MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
"""Lists that server-side apply merges by a key (`x-kubernetes-list-map-keys` in the API server's OpenAPI); every other
list is compared as a whole."""


def _same_quantity(wanted: Any, live: Any) -> bool:
    if not isinstance(wanted, str | int | float) or not isinstance(live, str | int | float):
        return False
    try:
        return Decimal(parse_quantity(wanted)) == Decimal(parse_quantity(live))
    except (ValueError, ArithmeticError):
        return False


def _merge_key(path: str, wanted: Sequence[Any], live: Sequence[Any]) -> str | None:
    """The key by which the entries of this list are matched, or None for a list compared as a whole."""
    field = path.rsplit(".", 1)[-1]
    key = _MERGE_KEYS.get(field)
    if field == "ports":
        key = "containerPort" if ".containers[" in path else "port"
    if key is None or not all(isinstance(entry, Mapping) and key in entry for entry in (*wanted, *live)):
        return None
    return key


def _empty(value: Any) -> bool:
    return value is None or value == {} or value == []


def differences(wanted: Any, live: Any, path: str = "") -> Iterator[str]:
    """Paths of rendered fields whose live value is another one."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            if not (_empty(wanted) and _empty(live)):
                yield path or "."
            return
        for key, value in wanted.items():
            if key in live:
                yield from differences(value, live[key], f"{path}.{key}")
            elif not _empty(value):
                yield f"{path}.{key}"
        return
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            if not (_empty(wanted) and _empty(live)):
                yield path
            return
        yield from _list_differences(wanted, live, path)
        return
    if wanted != live and not _same_quantity(wanted, live):
        yield path


def _list_differences(wanted: Sequence[Any], live: Sequence[Any], path: str) -> Iterator[str]:
    key = _merge_key(path, wanted, live)
    if key is None:
        if len(wanted) != len(live):
            yield path
            return
        for index, (ours, theirs) in enumerate(zip(wanted, live, strict=True)):
            yield from differences(ours, theirs, f"{path}[{index}]")
        return
    by_key = {entry[key]: entry for entry in live}
    for entry in wanted:
        if entry[key] not in by_key:
            yield f"{path}[{key}={entry[key]}]"
        else:
            yield from differences(entry, by_key[entry[key]], f"{path}[{key}={entry[key]}]")
