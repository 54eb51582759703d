"""Changes by hand of every field that a field manager owns, made from the API server's own record of them. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Step = str | tuple[tuple[str, Any], ...]
"""A key of a mapping, or the keys by which a list entry is found."""
Path = tuple[Step, ...]

_MISSING = object()
_OTHER_WORDS = {
    "TCP": "UDP",
    "HTTP": "HTTPS",
    "IfNotPresent": "Always",
    "ClusterIP": "NodePort",
    "AlwaysAllow": "IfHealthyBudget",
    "FallbackToLogsOnError": "File",
    "RuntimeDefault": "Unconfined",
    "RollingUpdate": "Recreate",
    "OnRootMismatch": "Always",
    "Max": "Min",
    "Percent": "Pods",
    "Pods": "Percent",
    "Exists": "Equal",
    "Ingress": "Egress",
    "ScheduleAnyway": "DoNotSchedule",
}

_NAMES_THAT_EXIST = ("tmp", "prompts")
"""Of volumes: what else a mount may name."""


def owned_fields(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The leaves of `managedFields[].fieldsV1`."""
    below = {key: value for key, value in fields.items() if key != "."}
    if not below:
        yield path
    for key, value in below.items():
        if key.startswith("f:"):
            yield from owned_fields(value, (*path, key[2:]))
        elif key.startswith("k:"):
            yield from owned_fields(value, (*path, tuple(json.loads(key[2:]).items())))


def show(path: Path) -> str:
    """A path for a message."""
    parts = [step if isinstance(step, str) else "[" + ",".join(f"{k}={v}" for k, v in step) + "]" for step in path]
    return ".".join(parts).replace(".[", "[")


def _matching(entries: list[Any], keys: tuple[tuple[str, Any], ...]) -> Any:
    return next((it for it in entries if all(it.get(name, value) == value for name, value in keys)), _MISSING)


def value_at(tree: Any, path: Path) -> Any:
    """The value at a path; `_MISSING` when there is none."""
    for step in path:
        tree = tree.get(step, _MISSING) if isinstance(step, str) else _matching(tree, step)
        if tree is _MISSING:
            return _MISSING
    return tree


def with_value(tree: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy with another value at a path; without the value when it is `_MISSING`."""
    result = copy.deepcopy(tree)
    parent, last = value_at(result, path[:-1]), path[-1]
    if isinstance(last, str):
        if value is _MISSING:
            del parent[last]
        else:
            parent[last] = value
    else:
        index = parent.index(_matching(parent, last))
        parent[index : index + 1] = [] if value is _MISSING else [value]
    return result


def others(value: Any) -> Iterator[Any]:
    """Values that somebody might put in the place of this one, the likeliest to be valid first; last, none at all."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, max(0, value - 1), max(1, value // 2))
    elif isinstance(value, str):
        if value in _OTHER_WORDS:
            yield _OTHER_WORDS[value]
        if any(digit.isdigit() for digit in value):
            yield "".join("7" if sign.isdigit() and sign != "7" else sign for sign in value)
        yield from (f"{value}-by-hand", f"{value}x", "by-hand", "other", "/by/hand", *_NAMES_THAT_EXIST)
    elif isinstance(value, Mapping):
        if value.keys() == {"name", "key"}:
            yield {**value, "name": "by-hand"}
        if all(isinstance(entry, str) for entry in value.values()):
            yield {**value, "by": "hand"}
        if isinstance(value.get("matchLabels"), Mapping):
            yield {**value, "matchLabels": {**value["matchLabels"], "by": "hand"}}
    elif isinstance(value, list):
        yield [*value, *value[:1]]
        if value and isinstance(value[0], str):
            yield [*value, "by-hand"]
        if value and isinstance(value[0], Mapping):
            for key, inner in value[0].items():
                for other in others(inner):
                    if other is not _MISSING:
                        yield [{**value[0], key: other}, *value[1:]]
        yield value[:-1]
    yield _MISSING


@dataclass(frozen=True)
class Mutation:
    """One way to change one owned field, as bodies to try until the API server accepts one."""

    path: Path
    removal: bool

    def bodies(self, live: dict[str, Any]) -> Iterator[dict[str, Any]]:
        value = value_at(live, self.path)
        if value is _MISSING:
            return
        for other in [_MISSING] if self.removal else others(value):
            if self.removal or other is not _MISSING:
                yield with_value(live, self.path, other)

    def __str__(self) -> str:
        return f"{'removal' if self.removal else 'change'} of {show(self.path)}"
