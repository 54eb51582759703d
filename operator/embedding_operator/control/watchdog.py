"""Notices watches that have gone quiet, and what that says about this process's health. No I/O.

A quiet cluster is legitimate, so silence alone proves nothing: every followed watch ends by itself once a minute and is
begun anew, which is heard; kopf's watch of EmbeddingServices is held against a list of them once per resync.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedding_operator.observe.follow import Key, key_of
from embedding_operator.observe.mirror import is_newer

HOPELESS = 4.0
"""So many times the limit of silence, a restart is worth trying even where the whole API server is silent."""


@dataclass(slots=True)
class Deliveries:
    """The newest version of each EmbeddingService that kopf's watch has delivered."""

    versions: dict[Key, str] = field(default_factory=dict)
    count: int = 0
    """How many there were so far; by it a list knows what had been delivered before it was made."""
    _gone: dict[Key, int] = field(default_factory=dict)
    """What was deleted, and as the how manieth delivery that came."""

    def event(self, live: Mapping[str, Any], *, gone: bool = False) -> None:
        """Something was delivered; of a deleted one, the version of its deletion."""
        key = key_of(live)
        self.count += 1
        self.versions[key] = str(live["metadata"]["resourceVersion"])
        if gone:
            self._gone[key] = self.count
        else:
            self._gone.pop(key, None)

    def behind(self, listed: Mapping[Key, str], namespace: str | None, before: int) -> tuple[Key, ...]:
        """What a list of this namespace had in a version that the watch has not delivered, although it had the time.

        `before` is the `count` when the list was begun. What was known as deleted by then no later list has, and it is
        forgotten; what was deleted since is not, as a list made in between may still have had it.
        """
        for key in [key for key, number in self._gone.items() if number <= before and namespace in (None, key[0])]:
            del self._gone[key], self.versions[key]
        return tuple(
            key
            for key, version in listed.items()
            if key not in self.versions or (version != self.versions[key] and is_newer(version, self.versions[key]))
        )


@dataclass(frozen=True, slots=True)
class Silence:
    """How long each watch has been silent, and how long it may be, in seconds by plural."""

    ages: Mapping[str, float]
    limits: Mapping[str, float]
    answered_ago: float
    """Seconds since the API server answered anything at all."""

    def not_ready(self) -> str | None:
        """What is known of the cluster may be old."""
        for resource, age in self.ages.items():
            if age > self.limits[resource]:
                return f"the watch of {resource} has been silent for {age:.0f} s"
        return None

    def not_alive(self) -> str | None:
        """The fault is likely this process's own: the API server answered something else when the watch had been silent
        for too long already, or a long time has passed. An API server that answers nobody is no reason to restart at
        once."""
        for resource, age in self.ages.items():
            limit = self.limits[resource]
            if age > HOPELESS * limit or age - self.answered_ago > limit:
                return f"the watch of {resource} has been silent for {age:.0f} s"
        return None
