"""Notices when somebody else changes a child back again and again, and ends the race for a while. No I/O.

Two controllers that undo each other's changes as fast as they see them load the API server, and where a Pod template is
concerned restart Pods without end: a second installation of this operator in another version is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from embedding_operator.act.outcome import Change
from embedding_operator.observe.follow import Key

MOST: Final = 10
"""So many repairs of the same fields of one child"""
WITHIN: Final = timedelta(seconds=60)
"""in this time are a race; nobody does that by hand."""
HOLD: Final = timedelta(seconds=60)
"""For so long nothing of the service is repaired then."""

Repair = tuple[str, str, tuple[str, ...]]
"""Kind, name and fields."""


@dataclass(slots=True)
class _Service:
    generation: int
    repairs: dict[Repair, list[datetime]] = field(default_factory=dict)
    until: datetime | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is repaired now, and for how many seconds more."""

    message: str
    seconds: float


@dataclass(slots=True)
class Repairs:
    """The recent repairs of every service."""

    _services: dict[Key, _Service] = field(default_factory=dict)

    def note(self, key: Key, generation: int, changes: Iterable[Change], now: datetime) -> None:
        """These were made. What belongs to a new spec is no repair."""
        service = self._of(key, generation)
        service.repairs = {
            repair: recent
            for repair, times in service.repairs.items()
            if (recent := [at for at in times if now - at < WITHIN])
        }
        for change in changes:
            if change.verb != "updated" or not change.fields:
                continue
            times = service.repairs.setdefault((change.kind, change.name, change.fields), [])
            times.append(now)
            if len(times) >= MOST:
                service.until, service.repairs = now + HOLD, {}
                service.why = (
                    f"somebody changes {', '.join(change.fields[:3])} of {change.kind}/{change.name} back all the time "
                    f"({MOST} times within a minute; its managedFields name who); it is left alone for a while"
                )
                return

    def held(self, key: Key, generation: int, now: datetime) -> Hold | None:
        """Whether to leave this service's children alone; a new spec is applied at once."""
        service = self._services.get(key)
        if service is None or service.generation != generation or service.until is None or now >= service.until:
            return None
        return Hold(service.why, (service.until - now).total_seconds())

    def _of(self, key: Key, generation: int) -> _Service:
        service = self._services.get(key)
        if service is None or service.generation != generation:
            service = self._services[key] = _Service(generation)
        return service

    def forget(self, key: Key) -> None:
        """The service is gone."""
        self._services.pop(key, None)

    def clear(self) -> None:
        """Somebody else repairs from now on."""
        self._services.clear()
