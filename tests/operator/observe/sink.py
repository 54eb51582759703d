"""Where a test has followed objects go."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from embedding_operator.cluster import ClusterError
from embedding_operator.observe.follow import Key, key_of


@dataclass
class Seen:
    """Everything `observe.follow` reported."""

    entries: dict[Key, dict[str, Any]] = field(default_factory=dict)
    put_names: list[str] = field(default_factory=list)
    lists: int = 0
    heard_times: int = 0
    errors: list[ClusterError] = field(default_factory=list)
    awaited: str = ""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the object named `awaited` came."""

    def put(self, live: dict[str, Any], *, gone: bool = False) -> None:
        name = str(live["metadata"]["name"])
        if gone:
            self.entries.pop(key_of(live), None)
            return
        self.put_names.append(name)
        self.entries[key_of(live)] = live
        if name == self.awaited:
            self.done.set()

    def keep(self, keys: Set[Key], version: str) -> None:
        self.lists += 1
        self.entries = {key: live for key, live in self.entries.items() if key in keys}

    def heard(self) -> None:
        self.heard_times += 1

    def refused(self, error: ClusterError) -> None:
        self.errors.append(error)
